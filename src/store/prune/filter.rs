//! Filters of what is stored, as `docker buildx prune --filter` and `[[worker.oci.gcpolicy]]` write them.
//!
//! In: text such as `type==regular,description~=golang`. Out: [`Filter`]. All terms of a text must hold; of several texts one is
//! enough. A term is a field that is set, or a field compared: `=` and `==` with a text, `!=` with another, `~=` with a regular
//! expression.

use regex::Regex;

use super::Item;

/// Longest filter that is read: a regular expression may cost far more memory than its text.
const LONGEST: usize = 4096;
/// Memory that a regular expression may take.
const REGEX_SIZE: usize = 1 << 20;

/// Why a filter is not read.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// There is no such field.
    #[error(
        "there is no field {name:?}: fields are id, type, parents, description, inuse, mutable, immutable, shared, private"
    )]
    Field {
        /// What was written.
        name: String,
    },
    /// The operator is not one.
    #[error("{text:?} is no comparison: write FIELD, FIELD=TEXT, FIELD!=TEXT or FIELD~=REGEX")]
    Operator {
        /// What was written.
        text: String,
    },
    /// The regular expression is not one.
    #[error("{text:?} is no regular expression")]
    Regex {
        /// What was written.
        text: String,
        /// Why.
        #[source]
        source: regex::Error,
    },
    /// It is too long.
    #[error("it is longer than {LONGEST} bytes")]
    TooLong,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Id,
    Type,
    Parents,
    Description,
    InUse,
    Mutable,
    Immutable,
    Shared,
    Private,
}

#[derive(Debug, Clone)]
enum Test {
    Present,
    Equal(String),
    Other(String),
    Match(Regex),
}

/// Which items are meant; the one without a text means all.
#[derive(Debug, Clone, Default)]
pub struct Filter(Vec<Vec<(Field, Test)>>);

impl Filter {
    /// Returns whether every item is meant, as no text was given.
    pub fn is_for_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads the texts of a filter, one of which must hold.
    ///
    /// # Errors
    ///
    /// A field, an operator or an expression that is not one.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, FilterError> {
        texts.iter().map(|text| terms(text.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// Returns whether an item is meant.
    pub fn matches(&self, item: &Item) -> bool {
        self.0.is_empty() || self.0.iter().any(|terms| terms.iter().all(|(field, test)| holds(*field, test, item)))
    }
}

fn terms(text: &str) -> Result<Vec<(Field, Test)>, FilterError> {
    if text.len() > LONGEST {
        return Err(FilterError::TooLong);
    }
    split(text).into_iter().map(term).collect()
}

/// Splits at the commas outside quotes.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted) = (Vec::new(), 0, false);
    for (at, character) in text.char_indices() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.into_iter().filter(|part| !part.trim().is_empty()).collect()
}

fn term(text: &str) -> Result<(Field, Test), FilterError> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_' && c != '-').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let field = field(name)?;
    let value = |text: &str| text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text).to_owned();
    let test = match (rest.trim_start().get(..2), rest.trim_start()) {
        (_, "") => Test::Present,
        (Some("=="), rest) => Test::Equal(value(&rest[2..])),
        (Some("!="), rest) => Test::Other(value(&rest[2..])),
        (Some("~="), rest) => Test::Match(expression(&value(&rest[2..]))?),
        (_, rest) if rest.starts_with('=') => Test::Equal(value(&rest[1..])),
        _ => return Err(FilterError::Operator { text: text.to_owned() }),
    };
    Ok((field, test))
}

fn expression(text: &str) -> Result<Regex, FilterError> {
    let built = regex::RegexBuilder::new(text).size_limit(REGEX_SIZE).build();
    built.map_err(|source| FilterError::Regex { text: text.to_owned(), source })
}

fn field(name: &str) -> Result<Field, FilterError> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "id" => Field::Id,
        "type" => Field::Type,
        "parent" | "parents" => Field::Parents,
        "description" => Field::Description,
        "inuse" => Field::InUse,
        "mutable" => Field::Mutable,
        "immutable" => Field::Immutable,
        "shared" => Field::Shared,
        "private" => Field::Private,
        _ => return Err(FilterError::Field { name: name.to_owned() }),
    })
}

/// A field that is true or false is compared with these words; BuildKit has them present or absent only.
fn holds(field: Field, test: &Test, item: &Item) -> bool {
    let truth = |set: bool| if set { "true" } else { "false" }.to_owned();
    let (set, text) = match field {
        Field::Id => (true, item.id.clone()),
        Field::Type => (true, item.kind.name().to_owned()),
        Field::Parents => (!item.parents.is_empty(), item.parents.join(";")),
        Field::Description => (!item.description.is_empty(), item.description.clone()),
        Field::InUse => (item.in_use, truth(item.in_use)),
        Field::Mutable => (item.mutable, truth(item.mutable)),
        Field::Immutable => (!item.mutable, truth(!item.mutable)),
        // Nothing but rbuild stores anything in a state directory.
        Field::Shared => (false, truth(false)),
        Field::Private => (true, truth(true)),
    };
    match test {
        Test::Present => set,
        Test::Equal(wanted) => text == *wanted,
        Test::Other(wanted) => text != *wanted,
        Test::Match(expression) => expression.is_match(&text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::prune::ItemKind;

    fn item() -> Item {
        Item {
            id: "7".into(),
            kind: ItemKind::CacheMount,
            description: "cached mount /go, \"x\"".into(),
            parents: vec!["5".into()],
            mutable: true,
            ..Item::default()
        }
    }

    #[test]
    fn terms_are_all_wanted_and_texts_are_alternatives() {
        let cases: &[(&[&str], bool)] = &[
            (&[], true),
            (&["id=7"], true),
            (&["id==7,type==exec.cachemount"], true),
            (&["id==7,type==regular"], false),
            (&["type==regular", "id==7"], true),
            (&["type!=regular"], true),
            (&["description~=^cached.*go"], true),
            (&["description~=\"mount /go, \""], true),
            (&["parents~=5"], true),
            (&["inuse"], false),
            (&["inuse=false"], true),
            (&["private,mutable"], true),
            (&["shared"], false),
            (&["immutable"], false),
        ];
        for (texts, expected) in cases {
            assert_eq!(Filter::parse(texts).expect("valid").matches(&item()), *expected, "{texts:?}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused_with_its_reason() {
        for (text, why) in [
            ("size=5", "there is no field \"size\""),
            ("id>5", "no comparison"),
            ("id~=(", "no regular expression"),
            (&"i".repeat(5000), "longer than"),
            ("id~=(a{1000}){1000}", "no regular expression"),
        ] {
            let error = Filter::parse(&[text]).expect_err(text).to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
