//! The page at `/` of the metrics address.

use lab::{Manner, wait_until};

use crate::stage::{SOON, Stage};

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn the_page_shows_a_zombie_and_nothing_of_its_connection_only_with_the_flag() {
    let stage = Stage::new();
    let limit = ["--lb-timeout", "2s"];
    let mut watch = stage.watch(&[&limit[..], &["--status-page"]].concat());
    let plain = stage.watch(&limit);
    let page = || watch.daemon.get("/").unwrap();
    let healthy = page();
    assert!(
        healthy.contains("<title>wsmon: healthy</title>"),
        "{healthy}"
    );
    assert!(
        healthy.contains("0 open connections, 0 zombies"),
        "{healthy}"
    );
    assert!(healthy.contains("No alerts began"), "{healthy}");

    let silent = stage.client(0, "/quiet", Manner::Responsive);
    let peer = silent.local_addr();
    watch.verdict(peer, "expired", SOON);
    let page = watch.daemon.get("/").unwrap();
    let row = format!(
        "<th scope=\"row\">{} <small>local {0}</small></th><td>1</td>",
        stage.port()
    );
    assert!(page.contains(&row), "{page}");
    assert!(
        page.contains("1 open connection, 1 zombie, 0 at risk"),
        "{page}"
    );
    assert!(page.contains("<td>2 s <small>lb</small></td>"), "{page}");
    assert!(page.contains("Most zombies: 1."), "{page}");
    let alerts = format!("<td>{} 1</td>", stage.port());
    assert!(
        page.contains("<th scope=\"row\">expired</th><td>1</td>"),
        "{page}"
    );
    assert!(page.contains(&alerts), "{page}");
    // Numbers of the style could be those of a port.
    let (_, content) = page.split_once("<main").unwrap();
    for secret in [
        peer.ip().to_string(),
        peer.port().to_string(),
        "/quiet".to_owned(),
    ] {
        assert!(!content.contains(&secret), "{secret} is in\n{content}");
    }

    // Its end ends the verdict, but the minute keeps it.
    drop(silent);
    wait_until("the end of the zombie on the page", SOON, || {
        let page = watch.daemon.get("/").unwrap();
        page.contains("0 zombies") && page.contains("Most zombies: 1.")
    })
    .unwrap();

    let page = plain.daemon.get("/").unwrap();
    assert!(page.contains("<a href=\"/metrics\">"), "{page}");
    let (_, content) = page.split_once("<main").unwrap();
    assert!(
        !content.contains(stage.port()) && !content.contains("<h2"),
        "{content}"
    );
}
