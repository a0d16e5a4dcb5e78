use super::*;

fn request(method: &str, addr: SocketAddr, path: &str) -> ureq::http::Response<String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .proxy(None)
        .http_status_as_error(false)
        .build()
        .into();
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("http://{addr}{path}"))
        .body(())
        .expect("a request");
    let (head, mut body) = agent.run(request).expect("an answer").into_parts();
    let text = body.read_to_string().expect("text");
    ureq::http::Response::from_parts(head, text)
}

/// The status and the text of a response.
fn reply(addr: SocketAddr, path: &str) -> (u16, String) {
    let reply = request("GET", addr, path);
    (reply.status().as_u16(), reply.into_body())
}

fn status(addr: SocketAddr, path: &str) -> u16 {
    reply(addr, path).0
}

fn start(has_status_page: bool) -> (SocketAddr, Serving) {
    let addresses = ["127.0.0.1:0".parse().expect("an address")];
    let server = MetricsServer::bind(&addresses).expect("a port");
    let bound = server.local_addrs().expect("addresses");
    (bound[0], server.start(has_status_page).expect("a thread"))
}

/// The links of a page to others.
fn links(page: &str) -> Vec<&str> {
    let links = page.split("<a href=\"").skip(1);
    links
        .map(|link| link.split_once('"').expect("an attribute").0)
        .collect()
}

#[test]
fn every_address_is_served() {
    let addresses = ["127.0.0.1:0", "127.0.0.2:0"].map(|text| text.parse().expect(text));
    let server = MetricsServer::bind(&addresses).expect("ports");
    let bound = server.local_addrs().expect("addresses");
    let _serving = server.start(false).expect("a thread");
    for addr in bound {
        assert_eq!(status(addr, "/"), 200, "{addr}");
    }
    let none = MetricsServer::bind(&[MetricsAddress::None]).expect("nothing to bind");
    assert_eq!(none.local_addrs().expect("none"), []);
}

#[test]
fn every_link_of_the_page_is_served() {
    let (addr, _serving) = start(false);
    let (status, page) = reply(addr, "/");
    assert_eq!(status, 200);
    let served: Vec<_> = links(&page)
        .into_iter()
        .map(|link| (link, reply(addr, link)))
        .collect();
    let statuses: Vec<_> = served
        .iter()
        .map(|(link, (status, _))| (*link, *status))
        .collect();
    let expected = [
        ("/metrics", 503),
        ("/healthz", 503),
        ("/readyz", 503),
        ("/docs/alerts.md", 200),
        ("/docs/metrics.md", 200),
    ];
    assert_eq!(statuses, expected, "not ready, but there");
    assert!(served[3].1.1.starts_with("# Alerts"));
    let (status, hint) = reply(addr, "/nothing");
    assert_eq!(status, 404);
    for (link, _) in expected {
        assert!(hint.contains(link), "{link} is not in {hint}");
    }
}

#[test]
fn the_status_page_shows_what_the_daemon_answers() {
    let (addr, serving) = start(true);
    let (status, page) = reply(addr, "/");
    assert_eq!(status, 503);
    assert!(page.contains("no state to show"), "{page}");
    let mut requests = serving.begin();
    let daemon = thread::spawn(move || {
        for _ in 0..2 {
            let Some(MetricsRequest::Page(reply)) = requests.blocking_recv() else {
                panic!("nothing else is requested");
            };
            let data = PageData {
                status: page::tests::record(vec![page::tests::listener("edge")]),
                hours: vec![Vec::new()],
            };
            reply.send(Box::new(data)).expect("it waits");
        }
    });
    let (status, page) = reply(addr, "/");
    assert_eq!(status, 200);
    assert!(page.contains(">edge <small>"), "{page}");
    assert!(links(&page).contains(&"/?refresh=on"), "{page}");
    let (status, page) = reply(addr, "/?refresh=on");
    assert_eq!(status, 200);
    assert!(page.contains("http-equiv=\"refresh\""), "{page}");
    daemon.join().expect("no panic");
}

#[test]
fn every_response_restricts_the_browser_and_only_reading_is_allowed() {
    let (addr, _serving) = start(false);
    for path in ["/", "/metrics", "/healthz", "/docs/alerts.md", "/nothing"] {
        let reply = request("GET", addr, path);
        let header = |name: &str| reply.headers()[name].to_str().expect("text");
        let policy = header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'; style-src 'sha256-"),
            "{policy}"
        );
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("referrer-policy"), "no-referrer");
        assert_eq!(header("x-frame-options"), "DENY");
        assert_eq!(header("cache-control"), "no-store");
    }
    let head = request("HEAD", addr, "/");
    assert_eq!((head.status().as_u16(), head.body().as_str()), (200, ""));
    assert_eq!(head.headers()["content-type"], "text/html; charset=utf-8");
    let refused = request("DELETE", addr, "/");
    assert_eq!(refused.status().as_u16(), 405);
    assert_eq!(refused.headers()["allow"], "GET,HEAD");
    assert!(refused.body().contains("use GET or HEAD"));
}

#[test]
fn nothing_is_ready_before_the_loop_runs_or_after_it_has_ended() {
    let (addr, serving) = start(false);
    for path in ["/readyz", "/healthz", "/metrics"] {
        assert_eq!(status(addr, path), 503, "{path} before");
    }
    let mut requests = serving.begin();
    let daemon = thread::spawn(move || {
        for _ in 0..2 {
            match requests.blocking_recv().expect("a request") {
                MetricsRequest::Alive(reply) => reply.send(()).expect("it waits"),
                MetricsRequest::Ready(reply) => reply.send(Vec::new()).expect("it waits"),
                MetricsRequest::Metrics(_) | MetricsRequest::Page(_) => {
                    panic!("nobody requests them")
                }
            }
        }
    });
    assert_eq!(status(addr, "/readyz"), 200);
    assert_eq!(status(addr, "/healthz"), 200);
    daemon.join().expect("no panic");
    assert_eq!(status(addr, "/readyz"), 503, "after");
}
