//! The default profile by names of system calls, as programs take it that compile filters themselves.

use super::program::{NAMESPACE_FLAGS, PERSONALITIES, REFUSED_FAMILIES};
use super::table::{self, Rule};

/// System calls with one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedRule {
    /// Their names.
    pub names: Vec<&'static str>,
    /// What happens to them.
    pub answer: Answer,
    /// What their first argument must be for the rule to hold; none if it always does.
    pub condition: Option<Condition>,
}

/// What happens to a system call; all that no rule names are refused with `EPERM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Allow,
    /// `ENOSYS`.
    Unknown,
}

/// A condition on the first argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It has this value.
    Equals(u32),
    /// It has none of these bits.
    Without(u32),
}

/// The number of families of sockets that Linux has.
const FAMILIES: u32 = 46;

/// Returns the rules for this machine's architectures; more than one rule may name a system call, of which any may allow it.
pub fn named_rules() -> Vec<NamedRule> {
    let (mut allowed, mut rules) = (Vec::new(), Vec::new());
    for (name, rule) in table::names() {
        match rule {
            Rule::Allow => allowed.push(name),
            Rule::Unknown => rules.push(NamedRule { names: vec![name], answer: Answer::Unknown, condition: None }),
            Rule::Deny => {}
            Rule::Clone | Rule::Socket | Rule::Personality => {
                rules.extend(conditions(rule).into_iter().map(|found| NamedRule {
                    names: vec![name],
                    answer: Answer::Allow,
                    condition: Some(found),
                }))
            }
        }
    }
    rules.insert(0, NamedRule { names: allowed, answer: Answer::Allow, condition: None });
    rules
}

fn conditions(rule: Rule) -> Vec<Condition> {
    match rule {
        Rule::Clone => vec![Condition::Without(NAMESPACE_FLAGS)],
        // libseccomp 2.5.4 lets all through where "below the first" and "above the second" stand beside each other.
        Rule::Socket => {
            (0..FAMILIES).filter(|family| !REFUSED_FAMILIES.contains(family)).map(Condition::Equals).collect()
        }
        Rule::Personality => PERSONALITIES.iter().map(|value| Condition::Equals(*value)).collect(),
        Rule::Allow | Rule::Deny | Rule::Unknown => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules_of(name: &str) -> Vec<(Answer, Option<Condition>)> {
        let rules = named_rules();
        let named = rules.iter().filter(|rule| rule.names.contains(&name));
        named.map(|rule| (rule.answer, rule.condition)).collect()
    }

    #[test]
    fn e13_the_profile_by_name_says_what_the_program_does() {
        assert_eq!(rules_of("read"), [(Answer::Allow, None)]);
        assert_eq!(rules_of("clone3"), [(Answer::Unknown, None)]);
        assert_eq!(rules_of("clone"), [(Answer::Allow, Some(Condition::Without(0x7e02_0000)))]);
        let families = rules_of("socket");
        assert_eq!(families.len(), 44);
        for (family, expected) in [(1, true), (2, true), (37, true), (38, false), (39, true), (40, false), (45, true)] {
            assert_eq!(families.contains(&(Answer::Allow, Some(Condition::Equals(family)))), expected, "{family}");
        }
        assert_eq!(rules_of("personality").len(), PERSONALITIES.len());
        for refused in ["mount", "unshare", "bpf", "keyctl", "ptrace_of_nothing", "init_module", "reboot"] {
            assert_eq!(rules_of(refused), [], "{refused}");
        }
    }
}
