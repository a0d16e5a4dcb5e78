//! A WebSocket server on port 8080 of loopback with one client, which answers a ping and is silent from
//! then on. For the guest in which `cargo xtask vm --package` tests the Debian package.

use std::{error::Error, net::TcpListener, thread};

use lab::Pair;

fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:8080")?;
    let mut pair = Pair::open(&listener, "127.0.0.2:0".parse()?)?;
    pair.last_ping()?;
    println!("{}", pair.peer()?);
    loop {
        thread::park();
    }
}
