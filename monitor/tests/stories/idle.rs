//! Idle gaps, and the middleboxes that end them.

use crate::{
    assert_all,
    story::{Act::*, Step::*, *},
};

#[test]
fn idle_connections_and_hops() {
    assert_all(stories());
}

pub(crate) fn stories() -> Vec<Story> {
    vec![
        story(
            "nobody writes, and a load balancer forgets after 350 s",
            "teleport#56379",
        )
        .live(50.0)
        .behind(silent(350.0))
        .at(350.0, PathBreaks)
        .until(400.0)
        .reports("expired suspected", 350.0..350.3),
        story("a ping every 300 s keeps a path of 350 s", "teleport#56379")
            .live(20.0)
            .behind(silent(350.0))
            .every(300.0, 300.0..1600.0, Host(Ping))
            .until(1600.0),
        story(
            "the first packet after 350 s of silence is answered by a RST",
            "aws-nlb",
        )
        .live(20.0)
        .behind(resetting(350.0))
        .at(350.0, PathResets)
        .at(400.0, Host(Message(10)))
        .until(410.0)
        .reports("expired suspected", 350.0..350.3)
        .reports("expired rst_received", 400.0..400.1)
        .shows("rst_received"),
        story("the same after 240 s, with a ping", "azure-lb")
            .behind(resetting(240.0))
            .at(240.0, PathResets)
            .at(270.0, Host(Ping))
            .until(300.0)
            .reports("expired suspected", 240.0..240.3)
            .reports("expired rst_received", 270.0..270.1),
        story(
            "keepalive probes keep a hop that counts packets",
            "calico#9372",
        )
        .behind(silent(120.0))
        .every(75.0, 75.0..900.0, Host(KeepAlive))
        .until(900.0),
        story("the peer's keepalive probes do so too", "calico#9372")
            .behind(silent(120.0))
            .every(75.0, 75.0..900.0, Peer(KeepAlive))
            .until(900.0),
        story(
            "keepalive probes don't keep a proxy that counts payload",
            "envoy#28196",
        )
        .behind(proxy(60.0))
        .every(20.0, 20.0..60.0, Host(KeepAlive))
        .at(60.1, Peer(Fin))
        .at(60.2, Host(Fin))
        .until(70.0)
        .reports("expiring suspected", 57.0..57.1)
        .reports("expiring fin", 60.1..60.3),
        story(
            "a ping every 60 s on a path of 60 s wins by a hair",
            "mattermost/docs#8929",
        )
        .behind(silent(60.0))
        .every(60.0, 60.0..601.0, Host(Ping))
        .until(610.0)
        .reports("at_risk", 180.0..187.0),
        story(
            "a ping every 55 s on a path of 60 s is one late ping from death",
            "at_risk",
        )
        .live(10.0)
        .behind(silent(60.0))
        .every(55.0, 55.0..250.0, Host(Ping))
        .until(250.0)
        .reports("at_risk", 165.0..172.0),
        story(
            "a ping every 65 s on a path of 60 s comes too late",
            "mattermost/docs#8929",
        )
        .live(10.0)
        .behind(silent(60.0))
        .at(60.01, PathBreaks)
        .every(65.0, 65.0..200.0, Host(Ping))
        .until(100.0)
        .reports("expired suspected", 60.0..60.3)
        .reports("expired confirmed", 66.0..67.0),
        story(
            "IPVS forgets after 900 s and drops the client's next message",
            "kubelb#539",
        )
        .live(100.0)
        .behind(silent(900.0))
        .at(900.0, PathBreaks)
        .at(1000.0, Peer(Message(50)))
        .until(1100.0)
        .reports("expired suspected", 900.0..900.3),
        story(
            "the configured limit is lower than the real one",
            "RFC 5382 REQ-5",
        )
        .live(10.0)
        .behind(silent(60.0))
        .at(100.0, Peer(Message(50)))
        .until(130.0)
        .reports("expired suspected", 60.0..60.3)
        .reports("expired recovered", 100.0..100.1),
        story(
            "a laptop sleeps past the limit and the path comes back",
            "ws",
        )
        .behind(silent(60.0))
        .at(50.0, PathBreaks)
        .at(70.0, Host(Message(50)))
        .at(90.0, PathHeals)
        .until(120.0)
        .reports("expired suspected", 60.0..60.3)
        .reports("expired confirmed", 71.0..72.5)
        .reports("expired recovered", 97.0..99.0),
        story(
            "a load balancer ends every WebSocket at an age of 30 s",
            "gcp-lb",
        )
        .live(1.0)
        .behind(lifetime(30.0))
        .every(1.0, 1.0..30.0, Host(Message(20)))
        .at(30.0, Peer(Fin))
        .at(30.1, Host(Fin))
        .until(40.0)
        .reports("expiring suspected", 28.5..28.6)
        .reports("expiring fin", 30.0..30.2),
        story("connections end after exactly ten minutes", "boundary#3133")
            .behind(lifetime(600.0))
            .every(20.0, 20.0..600.0, Host(Ping))
            .at(600.0, Peer(Fin))
            .at(600.1, Host(Fin))
            .until(700.0)
            .reports("expiring suspected", 570.0..570.1)
            .reports("expiring fin", 600.0..600.2),
        story("connections end after exactly an hour", "istio#43066")
            .behind(lifetime(3600.0))
            .every(20.0, 20.0..3600.0, Host(Ping))
            .at(3600.0, Peer(Fin))
            .at(3600.1, Host(Fin))
            .until(3700.0)
            .reports("expiring suspected", 3540.0..3540.1)
            .reports("expiring fin", 3600.0..3600.2),
        story("pings of the client keep a proxy of 100 s", "cloudflare")
            .behind(proxy(100.0))
            .every(30.0, 30.0..600.0, Peer(Ping))
            .until(600.0),
        story(
            "a server pushes, and proxy_read_timeout counts the client's silence",
            "nginx",
        )
        .behind(proxy_each_way(60.0))
        .every(10.0, 10.0..60.0, Host(Message(100)))
        .at(60.1, Peer(Fin))
        .at(60.2, Host(Fin))
        .until(70.0)
        .reports("expiring suspected", 57.0..57.1)
        .reports("expiring fin", 60.1..60.3),
        story(
            "the same limit was raised on the proxy and not in the configuration",
            "nginx",
        )
        .behind(proxy_each_way(60.0))
        .every(10.0, 10.0..200.0, Host(Message(100)))
        .until(200.0)
        .reports("expiring suspected", 57.0..57.1)
        .reports("expiring recovered", 61.0..64.5),
        story("both sides beat every 25 s on a path of 60 s", "socket.io")
            .behind(silent(60.0))
            .every(25.0, 25.0..600.0, Host(Message(1)))
            .every(25.0, 25.1..600.0, Peer(Message(1)))
            .until(600.0),
        story("a peer pongs and says nothing", "message_gap")
            .message_gap(35.0)
            .every(20.0, 10.0..60.0, Host(Ping))
            .at(50.5, Peer(Message(10)))
            .until(60.0)
            .reports("quiet suspected", 35.0..35.1)
            .reports("quiet recovered", 50.5..52.5),
        story(
            "the tighter of two hops forgets first",
            "agent-orchestrator#4667",
        )
        .behind(silent(350.0))
        .behind(silent(60.0))
        .at(60.0, PathBreaks)
        .until(400.0)
        .reports("expired suspected", 60.0..60.3),
    ]
}
