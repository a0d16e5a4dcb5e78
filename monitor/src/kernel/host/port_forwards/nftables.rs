//! Reads the output of `nft -j list ruleset` (libnftables-json(5)).

use std::{collections::HashMap, net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::{
    network,
    ruleset::{Rule, Ruleset, Target},
};

/// The rules, and whether there are some that only iptables can show.
pub(super) fn parse(json: &[u8]) -> serde_json::Result<(Ruleset, bool)> {
    let listing: Listing = serde_json::from_slice(json)?;
    let mut rules = Ruleset::default();
    let mut sets = HashMap::new();
    for object in &listing.nftables {
        match object {
            Object::Chain(chain) => {
                if matches!(chain.hook.as_deref(), Some("prerouting" | "output")) {
                    rules.bases.push(chain.key());
                }
            }
            Object::Set(set) | Object::Map(set) => {
                sets.insert(key(&set.family, &set.table, &set.name), &set.elem);
            }
            Object::Rule(_) | Object::Other(_) => {}
        }
    }
    let mut of_iptables = false;
    for object in &listing.nftables {
        if let Object::Rule(rule) = object {
            let parser = RuleParser { rule, sets: &sets };
            let parsed = parser.parse().unwrap_or_default();
            let chain = key(&rule.family, &rule.table, &rule.chain);
            rules.chains.entry(chain).or_default().extend(parsed);
            of_iptables |= rule.table == "nat" && rule.expr.iter().any(is_of_iptables);
        }
    }
    Ok((rules, of_iptables))
}

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Object>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Object {
    Chain(ChainObject),
    Set(SetObject),
    Map(SetObject),
    Rule(RuleObject),
    #[serde(untagged)]
    Other(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct ChainObject {
    family: String,
    table: String,
    name: String,
    hook: Option<String>,
}

#[derive(Deserialize)]
struct SetObject {
    family: String,
    table: String,
    name: String,
    #[serde(default)]
    elem: Vec<Value>,
}

#[derive(Deserialize)]
struct RuleObject {
    family: String,
    table: String,
    chain: String,
    #[serde(default)]
    expr: Vec<Value>,
}

impl ChainObject {
    fn key(&self) -> String {
        key(&self.family, &self.table, &self.name)
    }
}

/// Names hold no spaces.
fn key(family: &str, table: &str, name: &str) -> String {
    format!("{family} {table} {name}")
}

/// A target of iptables, whose parameters are not in the listing. nft before 1.0.6 prints `{"xt": null}`
/// for each target and each match.
fn is_of_iptables(expression: &Value) -> bool {
    let Some(extension) = expression.get("xt") else {
        return false;
    };
    matches!(extension["name"].as_str(), None | Some("DNAT" | "REDIRECT"))
}

/// What a part of a packet is called in an expression.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Port,
    /// The destination port of another protocol.
    OtherPort,
    Address,
    Protocol,
    Other,
}

struct RuleParser<'a> {
    rule: &'a RuleObject,
    sets: &'a HashMap<String, &'a Vec<Value>>,
}

impl RuleParser<'_> {
    /// One rule, or one for each element of a map. `None` if no TCP connection matches, or if a match is
    /// not understood.
    fn parse(&self) -> Option<Vec<Rule>> {
        let mut matched = Rule::default();
        let mut parsed = Vec::new();
        for expression in &self.rule.expr {
            let (kind, body) = expression.as_object()?.iter().next()?;
            match kind.as_str() {
                "match" => {
                    let negated = body["op"] == "!=";
                    for (field, value) in self.fields(&body["left"], &body["right"]) {
                        self.narrow(&mut matched, field, value, negated)?;
                    }
                }
                "jump" | "goto" => parsed.push(Rule {
                    target: self.chain(body),
                    ..matched.clone()
                }),
                "vmap" => parsed.extend(self.elements(body, &matched, |verdict| {
                    let body = verdict.get("jump").or_else(|| verdict.get("goto"))?;
                    Some(self.chain(body))
                })),
                "dnat" | "redirect" => {
                    let (addr, port) = (&body["addr"], &body["port"]);
                    match (addr.get("map"), port.get("map")) {
                        (Some(map), _) => {
                            parsed.extend(self.elements(map, &matched, |data| {
                                match data["concat"].as_array().map(Vec::as_slice) {
                                    Some([addr, port]) => destination(addr, port),
                                    _ => destination(data, port),
                                }
                            }));
                        }
                        (None, Some(map)) => {
                            let to = |data: &Value| destination(addr, data);
                            parsed.extend(self.elements(map, &matched, to));
                        }
                        (None, None) => parsed.push(Rule {
                            target: destination(addr, port)?,
                            ..matched.clone()
                        }),
                    }
                }
                _ => {}
            }
        }
        Some(parsed)
    }

    /// A rule for each element of a map of `matched` packets whose data have a target.
    fn elements(
        &self,
        map: &Value,
        matched: &Rule,
        target: impl Fn(&Value) -> Option<Target>,
    ) -> Vec<Rule> {
        let elements = self.members(&map["data"]);
        let rules = elements.iter().filter_map(|element| {
            let [value, data] = element.as_array()?.as_slice() else {
                return None;
            };
            let mut rule = matched.clone();
            for (field, value) in self.fields(&map["key"], value) {
                self.narrow(&mut rule, field, value, false)?;
            }
            rule.target = target(unwrapped(data))?;
            Some(rule)
        });
        rules.collect()
    }

    /// What a match compares, part by part if several are concatenated.
    fn fields<'a>(&self, left: &Value, right: &'a Value) -> Vec<(Field, &'a Value)> {
        let right = unwrapped(right);
        match (left["concat"].as_array(), right["concat"].as_array()) {
            (Some(left), Some(right)) => left.iter().map(field).zip(right).collect(),
            (Some(_), None) => Vec::new(),
            (None, _) => vec![(field(left), right)],
        }
    }

    /// Adds a condition to a rule; `None` if no TCP connection meets it, or if it is not understood.
    fn narrow(&self, rule: &mut Rule, field: Field, value: &Value, negated: bool) -> Option<()> {
        match field {
            Field::Other => {}
            Field::OtherPort => return None,
            Field::Protocol => {
                let is_tcp = |value: &Value| value == "tcp" || value == 6;
                if self.members(value).iter().any(is_tcp) == negated {
                    return None;
                }
            }
            Field::Port if negated => return None,
            Field::Port => {
                let members = self.members(value);
                rule.ports = Some(members.iter().map(port_range).collect::<Option<_>>()?);
            }
            Field::Address if negated => {}
            // A set of addresses is shown like any address.
            Field::Address => rule.address = net(value),
        }
        Some(())
    }

    /// The elements of a set, named or not; a single value is its own element.
    fn members(&self, value: &Value) -> Vec<Value> {
        let named = value.as_str().and_then(|text| text.strip_prefix('@'));
        let members = match named {
            Some(name) => {
                let key = key(&self.rule.family, &self.rule.table, name);
                self.sets.get(&key).map(|elements| elements.as_slice())
            }
            None => value["set"].as_array().map(Vec::as_slice),
        };
        match members {
            Some(members) => members.iter().map(|it| unwrapped(it).clone()).collect(),
            None => vec![value.clone()],
        }
    }

    fn chain(&self, body: &Value) -> Target {
        let name = body["target"].as_str().unwrap_or_default();
        Target::Chain(key(&self.rule.family, &self.rule.table, name))
    }
}

fn field(left: &Value) -> Field {
    if left["meta"]["key"] == "l4proto" {
        return Field::Protocol;
    }
    let payload = &left["payload"];
    let text = |name: &str| payload[name].as_str().unwrap_or_default();
    match (text("protocol"), text("field")) {
        ("tcp" | "th", "dport") => Field::Port,
        ("udp" | "udplite" | "sctp" | "dccp", _) => Field::OtherPort,
        ("ip" | "ip6", "daddr") => Field::Address,
        ("ip", "protocol") | ("ip6", "nexthdr") => Field::Protocol,
        _ => Field::Other,
    }
}

/// An element may be inside an object with its comment or counter.
fn unwrapped(element: &Value) -> &Value {
    match &element["elem"]["val"] {
        Value::Null => element,
        value => value,
    }
}

/// `7741`, or `{"range": [7000, 7003]}`.
fn port_range(value: &Value) -> Option<RangeInclusive<u16>> {
    let port = |value: &Value| u16::try_from(value.as_u64()?).ok();
    match value["range"].as_array().map(Vec::as_slice) {
        Some([first, last]) => Some(port(first)?..=port(last)?),
        _ => port(value).map(|port| port..=port),
    }
}

/// `"192.0.2.1"`, or `{"prefix": {"addr": "10.1.0.0", "len": 16}}`.
fn net(value: &Value) -> Option<IpNet> {
    let prefix = &value["prefix"];
    match prefix["addr"].as_str() {
        Some(addr) => network(&format!("{addr}/{}", prefix["len"])),
        None => network(value.as_str()?),
    }
}

/// Where `dnat` or `redirect` lead, both parts of which may be missing; `None` if one is not understood.
fn destination(addr: &Value, port: &Value) -> Option<Target> {
    Some(Target::To {
        address: if_given(addr, first_address)?,
        ports: if_given(port, port_range)?,
    })
}

fn if_given<T>(value: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<Option<T>> {
    match value {
        Value::Null => Some(None),
        value => read(value).map(Some),
    }
}

/// `"192.0.2.1"`, or `{"range": ["192.0.2.1", "192.0.2.9"]}`.
fn first_address(value: &Value) -> Option<IpAddr> {
    let first = value["range"].get(0).unwrap_or(value);
    first.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{super::RuleSource, *};

    /// Written by nft 1.0.6, one object per line.
    const LISTING: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../testdata/rulesets/nftables.jsonl"
    ));

    /// Those rules of iptables as nft before 1.0.6 prints them.
    const WITHOUT_NAMES: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../testdata/rulesets/nftables-without-names.jsonl"
    ));

    fn listing(lines: &str) -> String {
        let objects: Vec<&str> = lines.lines().collect();
        format!("{{\"nftables\": [{}]}}", objects.join(","))
    }

    #[test]
    fn every_way_to_forward_a_port_is_found() {
        let (rules, of_iptables) = parse(listing(LISTING).as_bytes()).expect("a listing");
        assert!(of_iptables);
        let found = rules.follow(RuleSource::Nftables).forwards;
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        let expected = [
            "80 to 10.0.0.2:7741",
            "192.0.2.1/32 443 to 10.0.0.3",
            "192.0.2.1/32 8000-8010 to 10.0.0.3",
            "90 to :7742",
            "91 to 10.0.0.4:7743",
            "81 to 10.0.0.5:7745",
            "82 to 10.0.0.6:7746",
            "1-65535 to 10.0.0.8:7000-7003",
            "95 to 10.0.0.9:7749",
            "97 to 10.0.0.9:7749",
            "85 to 10.0.0.11:7",
            "86 to 10.0.0.11:7",
            "98 to 10.0.0.7:1",
            "10.1.0.0/16 99 to 10.0.0.9:7749",
            "10.96.0.1/32 443 to 10.244.1.5:6443",
            "70 to 10.0.0.2:71",
            "72 to fd00::1:73",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn rules_of_iptables_are_noticed_without_their_names() {
        let (rules, of_iptables) = parse(listing(WITHOUT_NAMES).as_bytes()).expect("a listing");
        assert!(of_iptables);
        assert_eq!(rules.follow(RuleSource::Nftables).forwards, []);
        let names = [r#"{"type": "match", "name": "addrtype"}"#, "null"];
        for (table, name, expected) in [
            ("nat", names[0], false),
            ("nat", names[1], true),
            ("filter", names[1], false),
        ] {
            let line = format!(
                r#"{{"rule": {{"family": "ip", "table": "{table}", "chain": "c", "expr": [{{"xt": {name}}}]}}}}"#
            );
            let (_, of_iptables) = parse(listing(&line).as_bytes()).expect("a listing");
            assert_eq!(of_iptables, expected, "{line}");
        }
    }

    #[test]
    fn a_destination_that_is_not_understood_is_no_redirect_to_this_host() {
        let map = |data: &str| {
            let key = r#"{"payload": {"protocol": "tcp", "field": "dport"}}"#;
            format!(r#"{{"map": {{"key": {key}, "data": {{"set": [[80, {data}]]}}}}}}"#)
        };
        let range = r#"{"range": ["10.0.0.1", "10.0.0.9"]}"#;
        let prefix = r#"{"prefix": {"addr": "10.0.0.0", "len": 24}}"#;
        for (kind, body, expected) in [
            (
                "dnat",
                format!(r#"{{"addr": {range}, "port": 81}}"#),
                "1-65535 to 10.0.0.1:81",
            ),
            ("dnat", format!(r#"{{"addr": {prefix}, "port": 81}}"#), ""),
            (
                "dnat",
                r#"{"addr": "10.0.0.1", "port": {"symhash": 1}}"#.to_owned(),
                "",
            ),
            ("dnat", r#"{"port": 81}"#.to_owned(), "1-65535 to :81"),
            ("redirect", "null".to_owned(), "1-65535 to "),
            (
                "dnat",
                format!(r#"{{"addr": {}, "port": 81}}"#, map(range)),
                "80 to 10.0.0.1:81",
            ),
            (
                "dnat",
                format!(r#"{{"addr": {}, "port": 81}}"#, map(prefix)),
                "",
            ),
            (
                "dnat",
                format!(r#"{{"addr": "10.0.0.1", "port": {}}}"#, map("81")),
                "80 to 10.0.0.1:81",
            ),
            (
                "redirect",
                format!(r#"{{"port": {}}}"#, map("81")),
                "80 to :81",
            ),
            ("redirect", format!(r#"{{"port": {}}}"#, map(prefix)), ""),
        ] {
            let lines = format!(
                r#"{{"chain": {{"family": "ip", "table": "t", "name": "c", "hook": "prerouting"}}}}
{{"rule": {{"family": "ip", "table": "t", "chain": "c", "expr": [{{"{kind}": {body}}}]}}}}"#
            );
            let (rules, _) = parse(listing(&lines).as_bytes()).expect("a listing");
            let found = rules.follow(RuleSource::Nftables).forwards;
            let found: Vec<_> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found.join(", "), expected, "{kind} {body}");
        }
    }

    #[test]
    fn anything_else_is_left_out_and_never_fails() {
        for expression in [
            r#"{"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 53}}"#,
            r#"{"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "udp"}}"#,
            r#"{"match": {"op": "!=", "left": {"meta": {"key": "l4proto"}}, "right": "tcp"}}"#,
            r#"{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": "http"}}"#,
            r#"{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 65536}}"#,
            r#"{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": "@absent"}}"#,
            r#"7"#,
            r#"{}"#,
        ] {
            let lines = format!(
                r#"{{"chain": {{"family": "ip", "table": "t", "name": "c", "hook": "prerouting"}}}}
{{"rule": {{"family": "ip", "table": "t", "chain": "c", "expr": [{expression}, {{"dnat": {{"addr": "10.0.0.1"}}}}]}}}}
{{"rule": {{"unknown": 1}}}}
{{"ct helper": [1]}}"#
            );
            let (rules, of_iptables) = parse(listing(&lines).as_bytes()).expect("a listing");
            assert!(!of_iptables);
            let found = rules.follow(RuleSource::Nftables).forwards;
            assert_eq!(found, [], "{expression}");
        }
        assert!(parse(b"nft: not JSON").is_err());
    }
}
