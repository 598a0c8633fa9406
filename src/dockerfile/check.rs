//! What `# check=` says: which lint rules are skipped or added, and whether a warning fails the build.
//!
//! In: the value of a directive, of a build argument or of a comment above an instruction. Out: [`CheckOptions`].

use std::collections::BTreeSet;

use super::directive;
use super::error::{ParseError, UpstreamLines};
use super::goquote::quote;
use super::rule::Rule;
use super::text::parse_bool;

/// Which rules a `check` names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleSet {
    /// All of them.
    pub all: bool,
    /// These, by name; unknown names are kept and match nothing.
    pub names: BTreeSet<String>,
}

impl RuleSet {
    /// Every rule.
    pub fn all() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// Tells whether a rule is in the set.
    pub fn contains(&self, rule: Rule) -> bool {
        self.all || self.names.contains(rule.name())
    }

    /// Names what one part does; `all` stays, and a list replaces one before it.
    fn set(&mut self, value: &str) {
        match value.trim() {
            "all" => self.all = true,
            list => self.names = list.split(',').map(|name| name.trim().to_owned()).collect(),
        }
    }
}

/// Options of the check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// Rules that are not run.
    pub skip: RuleSet,
    /// Experimental rules that are.
    pub experimental: RuleSet,
    /// Whether a warning fails the build.
    pub error: bool,
}

/// Why a `check` value is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// A part is not `skip=…`, `experimental=…` or `error=…`.
    #[error("invalid check option {}", quote(option))]
    UnknownOption {
        /// The part.
        option: String,
    },
    /// `error=` with something other than a boolean.
    #[error(
        "failed to parse check option {}: strconv.ParseBool: parsing {}: invalid syntax",
        quote(option),
        quote(value)
    )]
    NotBoolean {
        /// The part.
        option: String,
        /// Its value.
        value: String,
    },
}

impl CheckOptions {
    /// Parses `k=v` parts, separated by `;`.
    pub fn parse(text: &str) -> Result<Self, CheckError> {
        let mut options = Self::default();
        if text.trim().is_empty() {
            return Ok(options);
        }
        for part in text.trim().splitn(3, ';') {
            options.set(part)?;
        }
        Ok(options)
    }

    fn set(&mut self, part: &str) -> Result<(), CheckError> {
        let Some((key, value)) = part.split_once('=') else {
            return Err(CheckError::UnknownOption { option: part.to_owned() });
        };
        match key.trim() {
            "skip" => self.skip.set(value),
            "experimental" => self.experimental.set(value),
            "error" => {
                let not_boolean = || CheckError::NotBoolean { option: part.to_owned(), value: value.trim().to_owned() };
                self.error = parse_bool(value.trim()).ok_or_else(not_boolean)?;
            }
            key => return Err(CheckError::UnknownOption { option: key.to_owned() }),
        }
        Ok(())
    }

    /// Reads the options in the comments above an instruction; unreadable ones say nothing.
    pub fn of_comments(comments: &[String]) -> Self {
        let first = comments.iter().find_map(|comment| directive::check_in_comment(comment));
        first.and_then(Result::ok).unwrap_or_default()
    }

    /// Reads the options of a build: the build argument `BUILDKIT_DOCKERFILE_CHECK` if given, else the file's directive.
    pub fn of_build(dockerfile: &[u8], build_arg: Option<&str>) -> Result<Self, ParseError> {
        if let Some(value) = build_arg {
            return Self::parse(value).map_err(|error| {
                ParseError::new(format!("failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK: {error}"))
            });
        }
        let Some(found) = directive::check_directive(dockerfile) else { return Ok(Self::default()) };
        Self::parse(&found.reference).map_err(|error| {
            ParseError::new(format!("failed to parse check options: {error}"))
                .at(&found.lines)
                .marking(found.cmdline.as_str())
                .named_upstream(UpstreamLines::None)
                .hinted("write `# check=skip=Rule1,Rule2;error=true`, without blanks")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_all_parts() {
        let options = CheckOptions::parse("skip= A , B;error=true;experimental=all").expect("valid");
        assert!(options.error && options.experimental.all && !options.skip.all);
        assert_eq!(options.skip.names.into_iter().collect::<Vec<_>>(), ["A", "B"]);
        assert_eq!(CheckOptions::parse(" ").expect("valid"), CheckOptions::default());
        assert!(CheckOptions::parse("skip=all;skip=A").expect("valid").skip.all);
    }

    #[test]
    fn names_what_it_does_not_know() {
        let cases = [
            ("foo", "invalid check option \"foo\""),
            ("foo=1", "invalid check option \"foo\""),
            ("error=x", "failed to parse check option \"error=x\": strconv.ParseBool: parsing \"x\": invalid syntax"),
        ];
        for (text, want) in cases {
            assert_eq!(CheckOptions::parse(text).expect_err(text).to_string(), want);
        }
    }

    #[test]
    fn build_argument_wins_over_the_directive() {
        let text = b"# check=foo\nFROM scratch\n";
        assert!(CheckOptions::of_build(text, Some("skip=all")).expect("valid").skip.all);
        let error = CheckOptions::of_build(text, None).expect_err("bad");
        assert_eq!(
            (error.message.as_str(), error.line()),
            ("failed to parse check options: invalid check option \"foo\"", 1)
        );
    }
}
