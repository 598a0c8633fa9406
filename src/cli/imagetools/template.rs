//! As much of Go's templates as people write for `imagetools inspect --format`.
//!
//! In: a template, a [`Tree`], and another of what is no part of the whole. Out: text. What is read: text, `{{EXPR}}` with `-` at either end, and as EXPR: `.`,
//! `.Field.Field`, `json EXPR`, `index EXPR "key"`, `(EXPR)` and `EXPR | json`. Anything else is refused, with what there is.

use super::tree::Tree;

/// What can be written, for whoever wrote something else.
pub(super) const FORMS: &str = "write `{{json .}}`, `{{json .Manifest}}`, `{{json .Image}}`, `{{json (index .Image \"linux/arm64\")}}`, \
    `{{.Name}}`, `{{.Manifest.Digest}}` `{{json .SBOM}}`, `{{json .Provenance}}` or another field; conditions and loops are not read by this version";

/// What can be asked for by name and is no part of `{{json .}}`.
pub(super) const METHODS: [&str; 2] = ["SBOM", "Provenance"];

/// Expressions in parentheses are read so deep.
const DEPTH: usize = 16;

/// Fills in a template.
///
/// # Errors
///
/// With what cannot be read.
pub(super) fn fill(template: &str, data: &Tree, methods: &Tree) -> Result<String, String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (inner, after) = after.split_once("}}").ok_or("`{{` without `}}`")?;
        let (inner, trims_before) = inner.strip_prefix("- ").map_or((inner, false), |inner| (inner, true));
        let (inner, trims_after) = inner.strip_suffix(" -").map_or((inner, false), |inner| (inner, true));
        text.push_str(if trims_before { before.trim_end() } else { before });
        let value = evaluate(inner, (data, methods))?;
        let shown = value.text().ok_or_else(|| format!("{{{{{inner}}}}} is no single value: write {{{{json …}}}}"))?;
        text.push_str(&shown);
        rest = if trims_after { after.trim_start() } else { after };
    }
    text.push_str(rest);
    Ok(text)
}

fn evaluate(expression: &str, (data, methods): (&Tree, &Tree)) -> Result<Tree, String> {
    let words = words(expression)?;
    let mut reader = Reader { words: &words, data, methods };
    let value = reader.pipeline(DEPTH)?;
    match reader.words {
        [] => Ok(value),
        [word, ..] => Err(format!("unexpected {word:?}")),
    }
}

/// Cuts an expression into strings, parentheses, bars and words.
fn words(expression: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = expression.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '(' | ')' | '|' => 1,
            '"' | '`' => rest[1..].find(first).ok_or("a string without end")? + 2,
            _ => rest.find(|c: char| c.is_whitespace() || "()|\"`".contains(c)).unwrap_or(rest.len()),
        };
        words.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    Ok(words)
}

struct Reader<'a> {
    words: &'a [String],
    data: &'a Tree,
    methods: &'a Tree,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<&str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    fn peek(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    fn pipeline(&mut self, depth: usize) -> Result<Tree, String> {
        let mut value = self.command(depth)?;
        while self.peek() == "|" {
            self.next();
            match self.next() {
                Some("json") => value = json(&value),
                other => return Err(format!("unexpected {:?} after |", other.unwrap_or_default())),
            }
        }
        Ok(value)
    }

    fn command(&mut self, depth: usize) -> Result<Tree, String> {
        match self.peek() {
            "json" => {
                self.next();
                Ok(json(&self.operand(depth)?))
            }
            "index" => {
                self.next();
                self.indexed(depth)
            }
            _ => self.operand(depth),
        }
    }

    fn indexed(&mut self, depth: usize) -> Result<Tree, String> {
        let mut value = self.operand(depth)?;
        while !matches!(self.peek(), "" | ")" | "|") {
            let key = self.next().unwrap_or_default().trim_matches(['"', '`']).to_owned();
            let found = value.at(&key).ok_or_else(|| format!("there is no {key:?}{}", have(&value)))?;
            value = found.clone();
        }
        Ok(value)
    }

    fn operand(&mut self, depth: usize) -> Result<Tree, String> {
        let depth = depth.checked_sub(1).ok_or("too many parentheses")?;
        match self.next() {
            Some("(") => {
                let value = self.pipeline(depth)?;
                if self.next() != Some(")") {
                    return Err("`(` without `)`".into());
                }
                let fields = self.peek().to_owned();
                if !fields.starts_with('.') {
                    return Ok(value);
                }
                self.next();
                field(&value, &fields)
            }
            Some(path) if path.starts_with('.') => {
                let path = path.to_owned();
                let first = path[1..].split('.').next().unwrap_or_default();
                field(if METHODS.contains(&first) { self.methods } else { self.data }, &path)
            }
            Some(other) => Err(format!("unexpected {other:?}")),
            None => Err("an expression is missing".into()),
        }
    }
}

fn json(value: &Tree) -> Tree {
    Tree::Leaf(value.json().into())
}

/// Follows `.A.B`; `.` alone is the whole.
fn field(value: &Tree, path: &str) -> Result<Tree, String> {
    let mut value = value;
    for name in path.split('.').filter(|name| !name.is_empty()) {
        value = value.member(name).ok_or_else(|| format!("there is no field {name}{}", have(value)))?;
    }
    Ok(value.clone())
}

fn have(value: &Tree) -> String {
    match value {
        Tree::Members(members) => {
            let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
            format!(" (there is {})", names.join(", "))
        }
        Tree::Leaf(_) | Tree::List(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Tree {
        let text = r#"{"name":"a:1","manifest":{"schemaVersion":2,"mediaType":"m","digest":"sha256:x","size":7,"manifests":[{"digest":"one"}]},
            "image":{"linux/amd64":{"os":"linux","os.version":"10","config":{"Env":["A=<1>"],"Labels":{"k.x":"v"}}}}}"#;
        serde_json::from_str(text).expect("json")
    }

    fn methods() -> Tree {
        serde_json::from_str(r#"{"SBOM":{"SPDX":{"name":"n"}}}"#).expect("json")
    }

    #[test]
    fn what_people_write_is_filled_in() {
        let amd = r#"(index .Image "linux/amd64")"#;
        for (template, expected) in [
            ("{{.Name}}", "a:1"),
            ("x {{ .Manifest.Digest }}\n", "x sha256:x\n"),
            ("{{.Manifest.Size}}/{{.Manifest.MediaType}}", "7/m"),
            ("a  {{- .Name -}}  b{{.Name}}", "aa:1ba:1"),
            ("{{.SBOM.SPDX.name}} {{json .SBOM.SPDX}}", "n {\n  \"name\": \"n\"\n}"),
            ("{{json .Manifest.Manifests}}", "[\n  {\n    \"digest\": \"one\"\n  }\n]"),
            ("{{.Manifest.Manifests | json}}", "[\n  {\n    \"digest\": \"one\"\n  }\n]"),
            ("{{(index .Manifest.Manifests 0).Digest}}", "one"),
            (&format!("{{{{{amd}.OSVersion}}}}"), "10"),
            (&format!("{{{{{amd}.Variant}}}}"), ""),
            (&format!("{{{{json {amd}.Config.Env}}}}"), "[\n  \"A=\\u003c1\\u003e\"\n]"),
            (&format!("{{{{index {amd}.Config.Labels \"k.x\"}}}}"), "v"),
        ] {
            assert_eq!(fill(template, &data(), &methods()).as_deref(), Ok(expected), "{template}");
        }
        let whole = fill("{{json .}}", &data(), &methods()).expect("whole");
        assert!(whole.starts_with("{\n  \"name\": \"a:1\",\n  \"manifest\": {\n    \"schemaVersion\": 2"), "{whole}");
    }

    #[test]
    fn all_else_is_refused() {
        for template in [
            "{{.Name",
            "{{}}",
            "{{range .Manifest.Manifests}}{{.}}{{end}}",
            "{{if .Name}}x{{end}}",
            "{{.Manifest}}",
            "{{.Provenance}}",
            "{{.Name | upper}}",
            "{{json (.Name}}",
            "{{index .Image \"linux/arm64\"}}",
            "{{json .Name .Name}}",
            "{{index .Image \"open}}",
            &format!("{{{{{}.Name{}}}}}", "(".repeat(99), ")".repeat(99)),
        ] {
            assert!(fill(template, &data(), &methods()).is_err(), "{template}");
        }
        assert!(
            fill("{{.Nam}}", &data(), &methods()).expect_err("no field").contains("there is name, manifest, image")
        );
    }
}
