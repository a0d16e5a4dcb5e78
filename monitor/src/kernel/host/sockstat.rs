//! The number of TCP sockets in a network namespace (`/proc/net/sockstat`).

use std::fs;

/// The TCP sockets of the calling thread's namespace that listen or are connections, of both families,
/// without those in TIME_WAIT. `None` if it cannot be read.
///
/// The kernel counts them as they come and go, so this costs the same however many there are.
pub(in crate::kernel) fn tcp_sockets() -> Option<u64> {
    let read = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
    let inet = in_use(&read("sockstat").ok()?, "TCP:")?;
    // Without IPv6 there is no such file.
    let inet6 = read("sockstat6").map_or(Some(0), |text| in_use(&text, "TCP6:"))?;
    Some(inet + inet6)
}

/// The number after `inuse` in the line that begins with `protocol`.
fn in_use(text: &str, protocol: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(protocol))?;
    let mut words = line.split_whitespace().skip_while(|word| *word != "inuse");
    words.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::Namespace;

    #[test]
    fn the_number_follows_its_name() {
        let text =
            "sockets: used 60\nTCP: inuse 12 orphan 3 tw 5 alloc 14 mem 2\nUDP: inuse 1 mem 0\n";
        assert_eq!(in_use(text, "TCP:"), Some(12));
        assert_eq!(in_use(text, "TCP6:"), None);
        assert_eq!(in_use("TCP: orphan 3\n", "TCP:"), None);
    }

    #[test]
    #[ignore = "needs root: makes network namespaces"]
    fn only_the_sockets_of_the_namespace_count() {
        let namespace = Namespace::new();
        let count = || namespace.enter(|| tcp_sockets().unwrap());
        assert_eq!(count(), 0);
        let connections =
            ["127.0.0.1:0", "[::1]:0"].map(|address| namespace.connect(address, address));
        assert_eq!(count(), 4);
        drop(connections);
    }
}
