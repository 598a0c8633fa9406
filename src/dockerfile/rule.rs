//! The lint rules: names, descriptions and pages, for all scopes of the check.
//!
//! In: nothing. Out: [`Rule`]. Names are what `# check=skip=` takes; descriptions and pages are shown with a warning.

/// A lint rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are the documented names of the rules, and `description` says what each is")]
pub enum Rule {
    StageNameCasing,
    FromAsCasing,
    NoEmptyContinuation,
    ConsistentInstructionCasing,
    DuplicateStageName,
    ReservedStageName,
    JsonArgsRecommended,
    MaintainerDeprecated,
    UndefinedArgInFrom,
    WorkdirRelativePath,
    UndefinedVar,
    MultipleInstructionsDisallowed,
    LegacyKeyValueFormat,
    InvalidBaseImagePlatform,
    RedundantTargetPlatform,
    SecretsUsedInArgOrEnv,
    InvalidDefaultArgInFrom,
    FromPlatformFlagConstDisallowed,
    CopyIgnoredFile,
    InvalidDefinitionDescription,
    ExposeProtoCasing,
    ExposeInvalidFormat,
}

/// Every rule, in the order of the documentation.
pub const ALL: [Rule; 22] = [
    Rule::StageNameCasing,
    Rule::FromAsCasing,
    Rule::NoEmptyContinuation,
    Rule::ConsistentInstructionCasing,
    Rule::DuplicateStageName,
    Rule::ReservedStageName,
    Rule::JsonArgsRecommended,
    Rule::MaintainerDeprecated,
    Rule::UndefinedArgInFrom,
    Rule::WorkdirRelativePath,
    Rule::UndefinedVar,
    Rule::MultipleInstructionsDisallowed,
    Rule::LegacyKeyValueFormat,
    Rule::InvalidBaseImagePlatform,
    Rule::RedundantTargetPlatform,
    Rule::SecretsUsedInArgOrEnv,
    Rule::InvalidDefaultArgInFrom,
    Rule::FromPlatformFlagConstDisallowed,
    Rule::CopyIgnoredFile,
    Rule::InvalidDefinitionDescription,
    Rule::ExposeProtoCasing,
    Rule::ExposeInvalidFormat,
];

/// Where the documentation of the rules is.
const PAGES: &str = "https://docs.docker.com/go/dockerfile/rule/";

impl Rule {
    /// Returns the name, as `# check=` takes it.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// Returns what the rule is about.
    pub fn description(self) -> &'static str {
        self.row().2
    }

    /// Returns the page that explains it; empty where there is none.
    pub fn url(self) -> String {
        match self.row().1 {
            "" => String::new(),
            page => format!("{PAGES}{page}/"),
        }
    }

    /// Tells whether the rule is off unless `experimental=` names it.
    pub fn is_experimental(self) -> bool {
        self == Rule::InvalidDefinitionDescription
    }

    /// Returns name, page and description.
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn row(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Rule::StageNameCasing => ("StageNameCasing", "stage-name-casing", "Stage names should be lowercase"),
            Rule::FromAsCasing => {
                ("FromAsCasing", "from-as-casing", "The 'as' keyword should match the case of the 'from' keyword")
            }
            Rule::NoEmptyContinuation => (
                "NoEmptyContinuation",
                "no-empty-continuation",
                "Empty continuation lines will become errors in a future release",
            ),
            Rule::ConsistentInstructionCasing => (
                "ConsistentInstructionCasing",
                "consistent-instruction-casing",
                "All commands within the Dockerfile should use the same casing (either upper or lower)",
            ),
            Rule::DuplicateStageName => ("DuplicateStageName", "duplicate-stage-name", "Stage names should be unique"),
            Rule::ReservedStageName => {
                ("ReservedStageName", "reserved-stage-name", "Reserved words should not be used as stage names")
            }
            Rule::JsonArgsRecommended => (
                "JSONArgsRecommended",
                "json-args-recommended",
                "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
            ),
            Rule::MaintainerDeprecated => (
                "MaintainerDeprecated",
                "maintainer-deprecated",
                "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
            ),
            Rule::UndefinedArgInFrom => {
                ("UndefinedArgInFrom", "undefined-arg-in-from", "FROM command must use declared ARGs")
            }
            Rule::WorkdirRelativePath => (
                "WorkdirRelativePath",
                "workdir-relative-path",
                "Relative workdir without an absolute workdir declared within the build can have unexpected results \
                 if the base image changes",
            ),
            Rule::UndefinedVar => ("UndefinedVar", "undefined-var", "Variables should be defined before their use"),
            Rule::MultipleInstructionsDisallowed => (
                "MultipleInstructionsDisallowed",
                "multiple-instructions-disallowed",
                "Multiple instructions of the same type should not be used in the same stage",
            ),
            Rule::LegacyKeyValueFormat => (
                "LegacyKeyValueFormat",
                "legacy-key-value-format",
                "Legacy key/value format with whitespace separator should not be used",
            ),
            Rule::InvalidBaseImagePlatform => {
                ("InvalidBaseImagePlatform", "", "Base image platform does not match expected target platform")
            }
            Rule::RedundantTargetPlatform => (
                "RedundantTargetPlatform",
                "redundant-target-platform",
                "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
            ),
            Rule::SecretsUsedInArgOrEnv => (
                "SecretsUsedInArgOrEnv",
                "secrets-used-in-arg-or-env",
                "Sensitive data should not be used in the ARG or ENV commands",
            ),
            Rule::InvalidDefaultArgInFrom => (
                "InvalidDefaultArgInFrom",
                "invalid-default-arg-in-from",
                "Default value for global ARG results in an empty or invalid base image name",
            ),
            Rule::FromPlatformFlagConstDisallowed => (
                "FromPlatformFlagConstDisallowed",
                "from-platform-flag-const-disallowed",
                "FROM --platform flag should not use a constant value",
            ),
            Rule::CopyIgnoredFile => {
                ("CopyIgnoredFile", "copy-ignored-file", "Attempting to Copy file that is excluded by .dockerignore")
            }
            Rule::InvalidDefinitionDescription => (
                "InvalidDefinitionDescription",
                "invalid-definition-description",
                "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. \
                 If this is not intended to be a description comment, add an empty line or comment between the \
                 instruction and the comment.",
            ),
            Rule::ExposeProtoCasing => {
                ("ExposeProtoCasing", "expose-proto-casing", "Protocol in EXPOSE instruction should be lowercase")
            }
            Rule::ExposeInvalidFormat => (
                "ExposeInvalidFormat",
                "expose-invalid-format",
                "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error \
                 in a future release",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_the_names_in_kebab_case() {
        for rule in ALL.into_iter().filter(|rule| !rule.url().is_empty()) {
            let name = rule.name().replace("JSON", "Json");
            let kebab: String = name
                .char_indices()
                .flat_map(|(i, c)| (i > 0 && c.is_uppercase()).then_some('-').into_iter().chain(c.to_lowercase()))
                .collect();
            assert_eq!(rule.url(), format!("{PAGES}{kebab}/"));
        }
    }
}
