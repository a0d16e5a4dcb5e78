use std::io::Read as _;

use tokio::time;

use super::*;

fn request(method: &str, addr: SocketAddr, path: &str) -> ureq::http::Response<String> {
    let (head, body) = request_with(method, addr, path, &[]).into_parts();
    let text = String::from_utf8(body).expect("text");
    ureq::http::Response::from_parts(head, text)
}

/// The same with headers. The body is as it came.
fn request_with(
    method: &str,
    addr: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> ureq::http::Response<Vec<u8>> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .proxy(None)
        .http_status_as_error(false)
        .build()
        .into();
    let mut request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("http://{addr}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(()).expect("a request");
    let (head, mut body) = agent.run(request).expect("an answer").into_parts();
    let bytes = body.read_to_vec().expect("a body");
    ureq::http::Response::from_parts(head, bytes)
}

/// The status and the text of a response.
fn reply(addr: SocketAddr, path: &str) -> (u16, String) {
    let reply = request("GET", addr, path);
    (reply.status().as_u16(), reply.into_body())
}

fn status(addr: SocketAddr, path: &str) -> u16 {
    reply(addr, path).0
}

/// Plain HTTP without passwords.
fn open() -> Access {
    Access::open(None).expect("no file")
}

fn start(has_status_page: bool) -> (SocketAddr, Serving) {
    let addresses = ["127.0.0.1:0".parse().expect("an address")];
    let server = MetricsServer::bind(&addresses).expect("a port");
    let bound = server.local_addrs().expect("addresses");
    (
        bound[0],
        server.start(has_status_page, open()).expect("a thread"),
    )
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
    let _serving = server.start(false, open()).expect("a thread");
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

#[test]
fn answers_are_compressed_if_the_client_takes_that() {
    let (addr, _serving) = start(false);
    for (accepted, expected) in [
        ("", false),
        ("identity", false),
        ("gzip", true),
        ("deflate, gzip;q=0.5, br", true),
        ("*", true),
        ("gzip;q=0", false),
        ("*;q=0", false),
        ("gzip;q=0, *", false),
        ("identity, gzip;q=0.5", false),
        ("identity;q=0.5, gzip", true),
        ("br", false),
        ("GZIP", true),
        ("gzip;q=x", false),
    ] {
        let headers = [("accept-encoding", accepted)];
        let reply = request_with("GET", addr, "/docs/metrics.md", &headers);
        let encoding = reply.headers().get("content-encoding");
        assert_eq!(encoding.is_some(), expected, "{accepted}: {encoding:?}");
        assert_eq!(reply.headers()["vary"], "accept-encoding");
        let mut body = reply.into_body();
        if expected {
            let compressed = std::mem::take(&mut body);
            assert!(compressed.len() < METRICS.len() / 2, "{}", compressed.len());
            let mut reader = flate2::read::GzDecoder::new(&*compressed);
            reader.read_to_end(&mut body).expect("gzip");
        }
        assert!(body == METRICS.as_bytes(), "{accepted}");
    }
}

#[test]
fn a_scrape_has_the_format_that_was_asked_for_and_the_duration_of_the_last_one() {
    let (addr, serving) = start(false);
    let mut requests = serving.begin();
    let daemon = thread::spawn(move || {
        for _ in 0..2 {
            let Some(MetricsRequest::Metrics(reply)) = requests.blocking_recv() else {
                panic!("nothing else is requested");
            };
            let exposition = crate::metrics::tests::exposition();
            assert!(reply.send(exposition).is_ok(), "it waits");
        }
    });
    let scrape = |accept| {
        let reply = request_with("GET", addr, "/metrics", &[("accept", accept)]);
        let headers = reply.headers();
        let kind = headers["content-type"].to_str().expect("text").to_owned();
        let vary: Vec<_> = headers.get_all("vary").iter().collect();
        assert_eq!(vary, ["accept", "accept-encoding"]);
        (kind, String::from_utf8(reply.into_body()).expect("text"))
    };
    let (kind, text) = scrape("*/*");
    assert_eq!(kind, "text/plain; version=0.0.4");
    assert!(text.contains("wsmon_degraded 0\n"), "{text}");
    assert!(
        !text.contains("wsmon_scrape_duration_seconds"),
        "it is the first"
    );
    assert!(!text.contains("wsmon_web_config_failures_total"), "{text}");
    let (kind, text) = scrape("application/openmetrics-text; version=1.0.0");
    let expected = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(kind, expected);
    assert!(text.ends_with("# EOF\n"), "{text}");
    let line = text
        .lines()
        .find_map(|it| it.strip_prefix("wsmon_scrape_duration_seconds "));
    let seconds: f64 = line.expect("it is the second").parse().expect("a number");
    assert!(0.0 < seconds && seconds < 60.0, "{seconds}");
    daemon.join().expect("no panic");
}

#[test]
fn a_compressed_scrape_is_the_same_text() {
    let (addr, serving) = start(false);
    let mut requests = serving.begin();
    let daemon = thread::spawn(move || {
        let Some(MetricsRequest::Metrics(reply)) = requests.blocking_recv() else {
            panic!("nothing else is requested");
        };
        let exposition = crate::metrics::tests::exposition();
        assert!(reply.send(exposition).is_ok(), "it waits");
    });
    let headers = [("accept-encoding", "gzip"), ("accept", "text/plain")];
    let reply = request_with("GET", addr, "/metrics", &headers);
    assert_eq!(reply.headers()["content-encoding"], "gzip");
    let vary: Vec<_> = reply.headers().get_all("vary").iter().collect();
    assert_eq!(vary, ["accept", "accept-encoding"]);
    let mut text = String::new();
    let compressed = reply.into_body();
    let mut reader = flate2::read::GzDecoder::new(&*compressed);
    reader.read_to_string(&mut text).expect("gzip, once");
    assert!(text.contains("wsmon_degraded 0\n"), "{text}");
    daemon.join().expect("no panic");
}

#[test]
fn further_scrapes_wait_until_one_is_written() {
    let (addr, serving) = start(false);
    let mut requests = serving.begin();
    let scrapes: Vec<_> = (0..5)
        .map(|_| thread::spawn(move || status(addr, "/metrics")))
        .collect();
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let mut next = |patience| {
        let request = runtime.block_on(async { time::timeout(patience, requests.recv()).await });
        match request {
            Ok(Some(MetricsRequest::Metrics(reply))) => Some(reply),
            Ok(other) => panic!("nothing else is requested: {other:?}"),
            Err(_) => None,
        }
    };
    let soon = Duration::from_secs(15);
    let mut held: Vec<_> = (0..SCRAPES)
        .map(|_| next(soon).expect("a scrape"))
        .collect();
    assert!(next(Duration::from_millis(300)).is_none(), "both are held");
    for _ in SCRAPES..5 {
        let reply = held.remove(0);
        assert!(
            reply.send(crate::metrics::tests::exposition()).is_ok(),
            "it waits"
        );
        held.push(next(soon).expect("there is room"));
    }
    for reply in held {
        assert!(
            reply.send(crate::metrics::tests::exposition()).is_ok(),
            "it waits"
        );
    }
    for scrape in scrapes {
        assert_eq!(scrape.join().expect("no panic"), 200);
    }
}
