//! Rules that translate destinations, whichever program wrote them.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    ops::RangeInclusive,
};

use ipnet::IpNet;

use super::{PortForward, RuleSource};
use crate::config::listeners::PortRange;

/// The rules of one namespace, by the key of their chain.
#[derive(Debug, Default)]
pub(super) struct Ruleset {
    pub(super) chains: HashMap<String, Vec<Rule>>,
    /// The chains with which the kernel begins.
    pub(super) bases: Vec<String>,
}

/// A rule that may apply to TCP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rule {
    /// The destination ports that it matches; `None` for all.
    pub(super) ports: Option<Vec<RangeInclusive<u16>>>,
    /// The destination that it matches; `None` for any.
    pub(super) address: Option<IpNet>,
    pub(super) target: Target,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Target {
    /// Nothing that matters here.
    #[default]
    Other,
    Chain(String),
    /// The new destination; `None` keeps the port, and an address of this host.
    To {
        address: Option<IpAddr>,
        ports: Option<RangeInclusive<u16>>,
    },
}

/// What the rules on the way to a chain have matched.
#[derive(Clone)]
struct Matched {
    ports: Vec<RangeInclusive<u16>>,
    address: Option<IpNet>,
}

/// What the rules forward.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// Each once, in the order of the rules.
    pub(super) forwards: Vec<PortForward>,
    /// Not all rules were followed.
    is_cut: bool,
    known: HashSet<PortForward>,
    /// Comparisons of ports so far.
    steps: usize,
}

/// Comparisons of ports at most. A rule is compared as often as chains lead to it.
const MAX_STEPS: usize = 200_000;
/// nftables allows no more jumps inside one another (`NFT_JUMP_STACK_SIZE`).
const MAX_DEPTH: usize = 16;

impl Ruleset {
    pub(super) fn follow(&self, by: RuleSource) -> Followed {
        let all = Matched {
            ports: vec![1..=u16::MAX],
            address: None,
        };
        let mut found = Followed::default();
        for base in &self.bases {
            self.follow_chain(base, &all, 0, &mut found, by);
        }
        found
    }

    fn follow_chain(
        &self,
        chain: &str,
        before: &Matched,
        depth: usize,
        found: &mut Followed,
        by: RuleSource,
    ) {
        let rules = self.chains.get(chain).map_or(&[][..], Vec::as_slice);
        for rule in rules {
            found.steps += before.comparisons(rule);
            if found.steps > MAX_STEPS || depth > MAX_DEPTH {
                found.is_cut = true;
                return;
            }
            let matched = before.narrowed(rule);
            match &rule.target {
                Target::Other => {}
                Target::Chain(_) if matched.ports.is_empty() => {}
                Target::Chain(next) => self.follow_chain(next, &matched, depth + 1, found, by),
                Target::To { address, ports } => {
                    for from in matched.ports {
                        found.push(PortForward {
                            ports: PortRange(from),
                            address: matched.address,
                            to_address: *address,
                            to_ports: ports.clone().map(PortRange),
                            by,
                        });
                    }
                }
            }
        }
    }
}

impl Followed {
    /// What is missing if not all rules were followed.
    pub(super) fn cut(&self) -> Option<String> {
        let error = "the rules lead to one another too often, not all were followed";
        self.is_cut.then(|| error.to_owned())
    }

    fn push(&mut self, forward: PortForward) {
        if self.known.insert(forward.clone()) {
            self.forwards.push(forward);
        }
    }
}

impl Matched {
    /// How many pairs of ports [`Matched::narrowed`] compares; at least one.
    fn comparisons(&self, rule: &Rule) -> usize {
        let of_rule = rule.ports.as_ref().map_or(1, Vec::len);
        (self.ports.len() * of_rule).max(1)
    }

    /// What also matches `rule`.
    fn narrowed(&self, rule: &Rule) -> Self {
        let ports = match &rule.ports {
            None => self.ports.clone(),
            Some(ports) => self
                .ports
                .iter()
                .flat_map(|a| ports.iter().filter_map(|b| common(a, b)))
                .collect(),
        };
        Self {
            ports,
            address: rule.address.or(self.address),
        }
    }
}

fn common(a: &RangeInclusive<u16>, b: &RangeInclusive<u16>) -> Option<RangeInclusive<u16>> {
    let (first, last) = (*a.start().max(b.start()), *a.end().min(b.end()));
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(port: u16) -> Target {
        Target::To {
            address: None,
            ports: Some(port..=port),
        }
    }

    fn rule(ports: RangeInclusive<u16>, target: Target) -> Rule {
        Rule {
            ports: Some(vec![ports]),
            address: None,
            target,
        }
    }

    fn ruleset(chains: &[(&str, Vec<Rule>)]) -> Ruleset {
        Ruleset {
            chains: chains
                .iter()
                .map(|(name, rules)| ((*name).to_owned(), rules.clone()))
                .collect(),
            bases: vec!["base".to_owned()],
        }
    }

    #[test]
    fn a_chain_applies_to_what_the_rules_before_it_have_matched() {
        let jump = Target::Chain("next".to_owned());
        let rules = ruleset(&[
            ("base", vec![rule(80..=90, jump)]),
            ("next", vec![rule(1..=85, to(1)), rule(100..=101, to(2))]),
            ("unused", vec![rule(1..=85, to(3))]),
        ]);
        let found = rules.follow(RuleSource::Nftables);
        let shown = found.forwards.iter().map(|it| it.ports.to_string());
        assert_eq!(shown.collect::<Vec<_>>(), ["80-85"]);
        assert!(!found.is_cut);
    }

    #[test]
    fn chains_that_lead_to_each_other_end_within_the_bounds() {
        let loops = |name: &str| rule(1..=u16::MAX, Target::Chain(name.to_owned()));
        let rules = ruleset(&[
            ("base", vec![loops("base"); 50]),
            ("next", vec![rule(80..=80, to(1))]),
        ]);
        let found = rules.follow(RuleSource::Nftables);
        assert_eq!(found.forwards, []);
        assert!(found.is_cut);
    }

    #[test]
    fn as_many_rules_as_are_followed_are_complete_and_one_more_is_cut() {
        let found = |rules: Vec<Rule>| {
            let found = ruleset(&[("base", rules)]).follow(RuleSource::Nftables);
            (found.forwards.len(), found.is_cut)
        };
        let forward = |step: usize| {
            let port = |number: usize| u16::try_from(number).unwrap();
            rule(port(1 + step / 1000)..=60_000, to(port(1 + step % 1000)))
        };
        assert_eq!(
            found((0..MAX_STEPS).map(forward).collect()),
            (MAX_STEPS, false)
        );
        assert_eq!(
            found((0..=MAX_STEPS).map(forward).collect()),
            (MAX_STEPS, true)
        );
        let set = Rule {
            ports: Some((1..=1000).map(|port| port..=port).collect()),
            ..rule(1..=1, to(1))
        };
        let jump = |next: &str| Rule {
            target: Target::Chain(next.to_owned()),
            ..set.clone()
        };
        let nested = ruleset(&[("base", vec![jump("next")]), ("next", vec![set.clone()])]);
        let nested = nested.follow(RuleSource::Nftables);
        assert!(
            nested.forwards.is_empty() && nested.is_cut,
            "1000 times 1000"
        );
    }

    #[test]
    fn jumps_are_followed_to_the_depth_that_nftables_allows() {
        let found = |depth: usize| {
            let name = |level: usize| match level {
                0 => "base".to_owned(),
                level => format!("{level}"),
            };
            let mut rules = ruleset(&[]);
            for level in 0..depth {
                let jump = Target::Chain(name(level + 1));
                rules.chains.insert(name(level), vec![rule(1..=9, jump)]);
            }
            rules.chains.insert(name(depth), vec![rule(1..=9, to(1))]);
            let found = rules.follow(RuleSource::Iptables);
            (found.forwards.len(), found.is_cut)
        };
        assert_eq!(found(MAX_DEPTH), (1, false));
        assert_eq!(found(MAX_DEPTH + 1), (0, true));
    }
}
