//! The load balancer's effects on connections, made with nftables and connection tracking.

use std::{net::IpAddr, time::Duration};

use serde_json::Value;

use crate::{Lab, LabError, Namespace, command, network::write_sysctl};

/// Packets the load balancer has dropped since the lab was built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DroppedPackets {
    /// Packets of connections forgotten after their idle timeout.
    pub forgotten: u64,
    /// Packets from or to a black-holed address.
    pub black_holed: u64,
    /// Randomly lost packets.
    pub lost: u64,
}

/// The idle rule and the loss have separate chains, so that [`Lab::silent_idle_timeout`] and
/// [`Lab::lose_one_in`] can be called again.
const RULES: &str = "
table inet lab {
    counter forgotten { }
    counter black_holed { }
    counter lost { }
    set black_holed4 { type ipv4_addr; }
    set black_holed6 { type ipv6_addr; }
    chain idle { }
    chain loss { }
    chain forward {
        type filter hook forward priority filter; policy accept;
        ip saddr @black_holed4 counter name black_holed drop
        ip daddr @black_holed4 counter name black_holed drop
        ip6 saddr @black_holed6 counter name black_holed drop
        ip6 daddr @black_holed6 counter name black_holed drop
        jump idle
        jump loss
    }
}
";

impl Lab {
    /// Makes the load balancer forget every TCP connection without a packet in either direction for
    /// `timeout`, and then silently drop its packets: no FIN, no RST, no ICMP. Neither end learns
    /// of it, as behind a network load balancer.
    ///
    /// * Any packet counts as activity: data, a bare ACK, a keepalive probe, a retransmission.
    /// * A connection's clock is exact (the kernel compares jiffies on each packet), but a new
    ///   timeout applies to a connection from its next packet on.
    /// * Forgetting is final: a connection cannot be picked up mid-stream. A new handshake from the
    ///   same port is a new connection and passes.
    /// * Above 300 s, connections with unacknowledged data are forgotten after 300 s, which is
    ///   conntrack's own limit for them.
    ///
    /// # Errors
    /// [`LabError::IdleTimeout`] unless `timeout` is a whole number of seconds, at least one.
    pub fn silent_idle_timeout(&self, timeout: Duration) -> Result<(), LabError> {
        self.forget_idle(timeout, "drop")
    }

    /// Like [`silent_idle_timeout`](Self::silent_idle_timeout), but answers packets of a forgotten
    /// connection with a RST.
    ///
    /// # Errors
    /// As [`silent_idle_timeout`](Self::silent_idle_timeout).
    pub fn rejecting_idle_timeout(&self, timeout: Duration) -> Result<(), LabError> {
        self.forget_idle(timeout, "reject with tcp reset")
    }

    fn forget_idle(&self, timeout: Duration, answer: &str) -> Result<(), LabError> {
        if timeout.as_secs() == 0 || timeout.subsec_nanos() != 0 {
            return Err(LabError::IdleTimeout(timeout));
        }
        // The rule comes first: it loads conntrack, and with it conntrack's parameters.
        self.nft(&format!(
            "flush chain inet lab idle\n\
             add rule inet lab idle ct state invalid counter name forgotten {answer}"
        ))?;
        self.lb.run(|| {
            let tcp = "net/netfilter/nf_conntrack_tcp";
            write_sysctl(&format!("{tcp}_timeout_established"), timeout.as_secs())?;
            // Do not pick up connections mid-stream, so that forgetting is final.
            write_sysctl(&format!("{tcp}_loose"), 0)?;
            // Only a forgotten connection is invalid, never one with a packet out of window.
            write_sysctl(&format!("{tcp}_be_liberal"), 1)
        })?
    }

    /// Drops every packet from and to `client` from now on. Packets still count as activity for the
    /// idle timeout.
    ///
    /// # Errors
    /// If `nft` fails.
    pub fn black_hole(&self, client: IpAddr) -> Result<(), LabError> {
        self.nft(&format!("add element {}", set_of(client)))
    }

    /// From now on answers every packet to `client` with a RST, as at the end of a connection's
    /// lifetime.
    ///
    /// # Errors
    /// If `nft` fails.
    pub fn reject(&self, client: IpAddr) -> Result<(), LabError> {
        let family = if client.is_ipv4() { "ip" } else { "ip6" };
        self.nft(&format!(
            "insert rule inet lab forward {family} daddr {client} meta l4proto tcp \
             reject with tcp reset"
        ))
    }

    /// Ends a [`black_hole`](Self::black_hole); without one it does nothing.
    ///
    /// # Errors
    /// If `nft` fails.
    pub fn heal(&self, client: IpAddr) -> Result<(), LabError> {
        let set = set_of(client);
        // Deleting a missing element is an error, so it is added first; both happen in one
        // transaction.
        self.nft(&format!("add element {set}\ndelete element {set}"))
    }

    /// Randomly drops one in `packets` TCP packets in each direction. From now on both ends send
    /// wire-sized packets, so that one loss is one segment.
    ///
    /// # Errors
    /// If `nft` or `ip` fails.
    pub fn lose_one_in(&self, packets: u32) -> Result<(), LabError> {
        for namespace in [self.client_ns(), self.server_ns()] {
            let mut ip = command::command("ip");
            ip.args(["-netns", namespace.name(), "link", "set", "uplink"]);
            ip.args(["gso_max_segs", "1"]);
            command::run(ip, "")?;
        }
        self.nft(&format!(
            "flush chain inet lab loss\n\
             add rule inet lab loss meta l4proto tcp numgen random mod {packets} 0 \
             counter name lost drop"
        ))
    }

    /// Ends [`lose_one_in`](Self::lose_one_in).
    ///
    /// # Errors
    /// If `nft` fails.
    pub fn lose_nothing(&self) -> Result<(), LabError> {
        self.nft("flush chain inet lab loss")
    }

    /// Number of packets dropped so far, by reason.
    ///
    /// # Errors
    /// If `nft` fails.
    pub fn dropped_packets(&self) -> Result<DroppedPackets, LabError> {
        let mut nft = self.lb.command("nft");
        nft.args(["--json", "list", "counters", "table", "inet", "lab"]);
        let listing = command::run(nft, "")?;
        let packets = |name: &str| {
            counter(&listing, name).ok_or_else(|| LabError::Command {
                command: "nft --json list counters".to_owned(),
                stderr: format!("no counter `{name}` in {listing}"),
            })
        };
        Ok(DroppedPackets {
            forgotten: packets("forgotten")?,
            black_holed: packets("black_holed")?,
            lost: packets("lost")?,
        })
    }

    fn nft(&self, script: &str) -> Result<(), LabError> {
        nft(&self.lb, script)
    }
}

pub(crate) fn install(lb: &Namespace) -> Result<(), LabError> {
    nft(lb, RULES)
}

pub(crate) fn nft(namespace: &Namespace, script: &str) -> Result<(), LabError> {
    let mut nft = namespace.command("nft");
    nft.args(["--file", "-"]);
    // nft 1.0 refuses a script whose last line lacks a newline.
    command::run(nft, &format!("{script}\n")).map(drop)
}

fn set_of(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("inet lab black_holed4 {{ {address} }}"),
        IpAddr::V6(address) => format!("inet lab black_holed6 {{ {address} }}"),
    }
}

fn counter(listing: &str, name: &str) -> Option<u64> {
    let listing: Value = serde_json::from_str(listing).ok()?;
    listing["nftables"]
        .as_array()?
        .iter()
        .map(|object| &object["counter"])
        .find(|counter| counter["name"] == name)?["packets"]
        .as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_name_in_the_listing() {
        let listing = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"counter": {"family": "inet", "name": "black_holed", "packets": 3, "bytes": 180}},
            {"counter": {"family": "inet", "name": "forgotten", "packets": 7, "bytes": 420}}]}"#;
        assert_eq!(counter(listing, "forgotten"), Some(7));
        assert_eq!(counter(listing, "unheard_of"), None);
    }
}
