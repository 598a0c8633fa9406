//! Bad input: one clear error each, and nothing lost.

mod dockerfile;
mod flags;
mod machine;
mod mistakes;
mod registry;
mod steps;

use crate::support::build::Output;

impl Output {
    /// Passes on a run that failed with `code` and told one error, which says `message` and offers `hint`.
    pub(crate) fn complains(self, code: i32, message: &str, hint: &str) -> Self {
        let output = self.failure(code);
        let errors: Vec<&str> = output.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{}", output.stderr);
        assert!(errors[0].contains(message), "{message:?} is not in:\n{}", output.stderr);
        let hints = output.stderr.lines().filter(|line| line.starts_with("hint: ")).collect::<Vec<_>>().join("\n");
        assert!(hints.contains(hint), "{hint:?} is not in the hints of:\n{}", output.stderr);
        assert!(!output.stderr.contains("(os error"), "{}", output.stderr);
        output
    }

    /// Asserts that the excerpt points to `line` of `file`, which reads `text`.
    fn points_to(self, file: &str, line: u32, text: &str) -> Self {
        let marked = format!(" {line:>3} | >>> {text}\n");
        self.says(&format!("{file}:{line}\n--------------------\n")).says(&marked)
    }
}
