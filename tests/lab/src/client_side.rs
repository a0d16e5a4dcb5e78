//! Failures at the clients' end that affect all clients at once.

use crate::{Lab, LabError, command, load_balancer::nft};

const NOTHING_COMES_IN: &str = "
table inet lab {
    chain input {
        type filter hook input priority filter; policy drop;
    }
}
";

impl Lab {
    /// The clients' host drops all incoming packets, as after a firewall mistake; outgoing packets
    /// still pass.
    ///
    /// # Errors
    /// If `nft` fails.
    pub fn deafen_clients(&self) -> Result<(), LabError> {
        nft(self.client_ns(), NOTHING_COMES_IN)
    }

    /// Ends [`deafen_clients`](Self::deafen_clients).
    ///
    /// # Errors
    /// If `nft` fails.
    pub fn let_clients_hear(&self) -> Result<(), LabError> {
        nft(self.client_ns(), "delete table inet lab")
    }

    /// Takes the clients' link down permanently.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn unplug_clients(&self) -> Result<(), LabError> {
        let mut ip = command::command("ip");
        ip.args(["-netns", self.client_ns().name()]);
        ip.args(["link", "set", "uplink", "down"]);
        command::run(ip, "").map(drop)
    }
}
