//! Reads the output of `iptables-save -t nat` and `ip6tables-save -t nat`.

use std::{net::IpAddr, ops::RangeInclusive};

use super::{
    network,
    ruleset::{Rule, Ruleset, Target},
};

/// Lines that are not understood are left out.
pub(super) fn parse(text: &str) -> Ruleset {
    let mut rules = Ruleset {
        bases: ["PREROUTING", "OUTPUT"].map(str::to_owned).to_vec(),
        ..Ruleset::default()
    };
    for line in text.lines() {
        if let Some((chain, rule)) = line.strip_prefix("-A ").and_then(parse_rule) {
            rules.chains.entry(chain).or_default().push(rule);
        }
    }
    rules
}

/// `None` for a rule that no TCP connection matches, or whose matches are not understood.
fn parse_rule(text: &str) -> Option<(String, Rule)> {
    let mut words = words(text).into_iter();
    let chain = words.next()?;
    let mut rule = Rule::default();
    let (mut to_address, mut to_ports) = (None, None);
    let mut is_negated = false;
    while let Some(word) = words.next() {
        let negated = std::mem::take(&mut is_negated);
        match word.as_str() {
            "!" => is_negated = true,
            "-p" => {
                let is_tcp = matches!(words.next()?.as_str(), "tcp" | "6" | "all");
                if is_tcp == negated {
                    return None;
                }
            }
            "-d" if !negated => rule.address = Some(network(&words.next()?)?),
            "--dport" | "--dports" if negated => return None,
            "--dport" | "--dports" => {
                let ports = words.next()?;
                rule.ports = Some(
                    ports
                        .split(',')
                        .map(|it| range(it, ':'))
                        .collect::<Option<_>>()?,
                );
            }
            "-j" | "-g" => {
                rule.target = match words.next()?.as_str() {
                    "DNAT" | "REDIRECT" => Target::To {
                        address: None,
                        ports: None,
                    },
                    chain => Target::Chain(chain.to_owned()),
                };
            }
            "--to-destination" => (to_address, to_ports) = destination(&words.next()?)?,
            "--to-ports" => to_ports = Some(range(&words.next()?, '-')?),
            _ => {}
        }
    }
    if let Target::To { address, ports } = &mut rule.target {
        (*address, *ports) = (to_address, to_ports);
    }
    Some((chain, rule))
}

/// The words of a line; a word in quotes may hold spaces.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let last = words.len() - 1;
        match c {
            '\\' if is_quoted => words[last].extend(chars.next()),
            '"' => is_quoted = !is_quoted,
            ' ' if !is_quoted => words.push(String::new()),
            c => words[last].push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// `10.0.0.2:7741`, `10.0.0.2`, `[fd00::1]:80-90`, `:80`.
fn destination(text: &str) -> Option<(Option<IpAddr>, Option<RangeInclusive<u16>>)> {
    if let Ok(address) = text.parse() {
        return Some((Some(address), None));
    }
    let (address, ports) = text.rsplit_once(':')?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let address = match address {
        "" => None,
        // The first of a range of addresses.
        address => Some(address.split('-').next()?.parse().ok()?),
    };
    // `-j DNAT --random-fully` and a base port behind `/` do not matter here.
    let ports = ports.split('/').next()?;
    Some((address, Some(range(ports, '-')?)))
}

fn range(text: &str, separator: char) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once(separator).unwrap_or((text, text));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::{super::RuleSource, *};

    fn forwards(text: &str) -> Vec<String> {
        let found = parse(text).follow(RuleSource::Iptables);
        found.forwards.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn published_ports_of_docker_are_found_through_its_chain() {
        let text = "\
*nat
:PREROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
-A DOCKER -d 192.0.2.1/32 ! -i docker0 -p udp -m udp --dport 53 -j DNAT --to-destination 172.17.0.3:53
COMMIT
";
        assert_eq!(forwards(text), ["8080 to 172.17.0.2:80"]);
    }

    #[test]
    fn the_service_of_a_cluster_leads_to_its_pods() {
        let text = r#"
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.7.7/32 -p tcp -m comment --comment "a/\"b:http -p udp" -m tcp --dport 443 -j KUBE-SVC-A
-A KUBE-SVC-A -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-1
-A KUBE-SVC-A -j KUBE-SEP-2
-A KUBE-SEP-1 -p tcp -m tcp -j DNAT --to-destination 10.244.1.5:8443
-A KUBE-SEP-2 -p tcp -m tcp -j DNAT --to-destination 10.244.1.6:8443
"#;
        let expected = [
            "10.96.7.7/32 443 to 10.244.1.5:8443",
            "10.96.7.7/32 443 to 10.244.1.6:8443",
        ];
        assert_eq!(forwards(text), expected);
    }

    #[test]
    fn every_form_of_ports_and_destinations_is_read() {
        for (rule, expected) in [
            (
                "-p tcp -m tcp --dport 80 -j REDIRECT --to-ports 7742",
                "80 to :7742",
            ),
            (
                "-p tcp -m multiport --dports 1,2:4 -j REDIRECT --to-ports 7",
                "1 to :7, 2-4 to :7",
            ),
            (
                "-d 10.2.0.1/32 -j DNAT --to-destination 10.3.0.1",
                "10.2.0.1/32 1-65535 to 10.3.0.1",
            ),
            (
                "-p tcp --dport 80 -j DNAT --to-destination [fd00::1]:81-82",
                "80 to fd00::1:81-82",
            ),
            (
                "-p tcp --dport 80 -j DNAT --to-destination 10.0.0.1-10.0.0.9:81",
                "80 to 10.0.0.1:81",
            ),
            (
                "-p tcp --dport 80 -j DNAT --to-destination :81",
                "80 to :81",
            ),
            ("! -p tcp -j REDIRECT --to-ports 1", ""),
            ("-p tcp -m tcp ! --dport 80 -j REDIRECT --to-ports 1", ""),
            ("-p tcp --dport http -j REDIRECT --to-ports 1", ""),
            ("-p tcp --dport", ""),
            ("", ""),
        ] {
            let found = forwards(&format!("-A PREROUTING {rule}"));
            assert_eq!(found.join(", "), expected, "{rule}");
        }
    }
}
