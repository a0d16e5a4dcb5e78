//! What can happen to all clients at once, at their own end.

use crate::{Lab, LabError, command, load_balancer::nft};

const NOTHING_COMES_IN: &str = "
table inet lab {
    chain input {
        type filter hook input priority filter; policy drop;
    }
}
";

impl Lab {
    /// The clients' host drops all that comes in, as after a mistake in its firewall; what it sends
    /// still passes.
    ///
    /// # Errors
    /// What `nft` said.
    pub fn deafen_clients(&self) -> Result<(), LabError> {
        nft(self.client_ns(), NOTHING_COMES_IN)
    }

    /// Ends [`deafen_clients`](Self::deafen_clients).
    ///
    /// # Errors
    /// What `nft` said.
    pub fn let_clients_hear(&self) -> Result<(), LabError> {
        nft(self.client_ns(), "delete table inet lab")
    }

    /// Takes the clients' link down, for good.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn unplug_clients(&self) -> Result<(), LabError> {
        let mut ip = command::command("ip");
        ip.args(["-netns", self.client_ns().name()]);
        ip.args(["link", "set", "uplink", "down"]);
        command::run(ip, "").map(drop)
    }
}
