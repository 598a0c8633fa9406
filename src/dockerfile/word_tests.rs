//! Tests of the variable lexer.

use super::*;
use proptest::prelude::*;

fn env() -> Vec<(String, String)> {
    let pairs = [
        ("foo", "bar"),
        ("empty", ""),
        ("two", "a b"),
        ("p", "/usr/local/lib/libfoo.so.1.2"),
        ("s", "banana"),
        ("u", "äöü-äöü"),
        ("esc", "*x"),
        ("1", "one"),
    ];
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn expand(text: &str) -> Result<String, String> {
    Lexer::new('\\').word(text, &env()).map(|e| e.text).map_err(|e| e.problem.to_string())
}

#[test]
fn expands() {
    let cases = [
        ("$foo", "bar"),
        ("${foo}x$foo.y", "barxbar.y"),
        ("'$foo'\"$foo\"\\$foo", "$foobar$foo"),
        ("\"a\\\"b\\\\c\\d\"", "a\"b\\c\\d"),
        ("a\\", "a"),
        ("$", "$"),
        ("$ x", "$ x"),
        ("$1x$10", "onex"),
        ("$unset|", "|"),
        ("${unset-w}${empty-w}${foo-w}", "wbar"),
        ("${unset:-w}${empty:-w}${foo:-w}", "wwbar"),
        ("${unset+w}${empty+w}${foo+w}", "ww"),
        ("${unset:+w}${empty:+w}${foo:+w}", "w"),
        ("${foo?x}${foo:?x}${empty?x}", "barbar"),
        ("${unset:-${foo:-x}}", "bar"),
        ("${unset:-\"a}b\"}", "a}b"),
        ("${p#*/}", "usr/local/lib/libfoo.so.1.2"),
        ("${p##*/}", "libfoo.so.1.2"),
        ("${p%.*}", "/usr/local/lib/libfoo.so.1"),
        ("${p%%.*}", "/usr/local/lib/libfoo"),
        ("${p#x}", "/usr/local/lib/libfoo.so.1.2"),
        ("${s/an/AN}", "bANana"),
        ("${s//an/AN}", "bANANa"),
        ("${s/?a/_}", "_nana"),
        ("${s//n*/N}", "baN"),
        ("${s//a/}", "bnn"),
        ("${u//ö/o}", "äoü-äoü"),
        ("${p//\\//-}", "-usr-local-lib-libfoo.so.1.2"),
        ("${esc#\\*}", "x"),
        ("${p%$unset}", "/usr/local/lib/libfoo.so.1.2"),
        ("${s%?}", "banan"),
        ("${s%%?a*}", ""),
    ];
    for (text, want) in cases {
        assert_eq!(expand(text).as_deref(), Ok(want), "{text}");
    }
}

#[test]
fn replacement_of_all_is_a_template() {
    assert_eq!(expand("${s//n/\\$1}").as_deref(), Ok("ba\\a\\a"));
}

#[test]
fn says_what_is_wrong() {
    let cases = [
        ("'a", "unexpected end of statement while looking for matching single-quote"),
        ("\"a", "unexpected end of statement while looking for matching double-quote"),
        ("${", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${{x}}", "syntax error: bad substitution"),
        ("${:x}", "syntax error: bad substitution"),
        ("${x", "syntax error: missing '}'"),
        ("${x:", "syntax error: missing '}'"),
        ("${x:-a", "syntax error: missing '}'"),
        ("${x/a}", "syntax error: missing '/' in ${}"),
        ("${x/a/b", "syntax error: missing '}'"),
        ("${x=y}", "unsupported modifier (=) in substitution"),
        ("${x:=y}", "unsupported modifier (:=) in substitution"),
        ("${x:#y}", "unsupported modifier (:#) in substitution"),
        ("${x:1:2}", "unsupported modifier (:1) in substitution"),
        ("${x^}", "unsupported modifier (^) in substitution"),
        ("${x?gone}", "x: gone"),
        ("${x?}", "x: is not allowed to be unset"),
        ("${empty:?}", "empty: is not allowed to be empty"),
        ("${s#a\\b}", "invalid pattern (a\\b) in substitution: invalid escape '\\b'"),
    ];
    for (text, want) in cases {
        assert_eq!(expand(text), Err(want.to_owned()), "{text}");
    }
    let error = Lexer::new('\\').word("\"a", &env()).expect_err("unterminated");
    assert!(error.to_string().starts_with("failed to process \"\\\"a\": unexpected end"), "{error}");
}

#[test]
fn splits_words_after_expansion() {
    let lexer = Lexer::new('\\');
    let cases: [(&str, &[&str]); 6] = [
        ("a  b", &["a", "b"]),
        ("$two c", &["a", "b", "c"]),
        ("\"$two\" 'x y'", &["a b", "x y"]),
        ("a\\ b", &["a b"]),
        ("<< EOF x", &["<< EOF", "x"]),
        ("\"\" a", &["a"]),
    ];
    for (text, want) in cases {
        assert_eq!(lexer.words(text, &env()).expect(text).0, want, "{text}");
    }
}

#[test]
fn nested_words_forget_what_stood_before() {
    let (words, _, _) = Lexer::new('\\').words("${x:-80}/${y:-tcp}", &env()).expect("valid");
    assert_eq!(words, ["tcp"]);
}

#[test]
fn raw_modes_keep_their_marks() {
    let raw = Lexer { raw_quotes: true, raw_escapes: true, skip_unset: true, ..Lexer::new('\\') };
    let text = "'a' \"b\" c\\d $foo $x ${x} ${x:-y} ${x#z} ${x/a/b}";
    let want = "'a' \"b\" c\\d bar $x ${x} ${x:-y} ${x#z} ${x/a/b}";
    assert_eq!(raw.word(text, &env()).expect("valid").text, want);
    let body = Lexer { skip_process_quotes: true, ..Lexer::new('\\') };
    assert_eq!(body.word("it's \"$foo\" \\n\n", &env()).expect("valid").text, "it's \"bar\" n\n");
}

#[test]
fn records_names() {
    let found = Lexer::new('`').word("${foo:-$a} $b `$c", &env()).expect("valid");
    assert_eq!(found.matched.into_iter().collect::<Vec<_>>(), ["foo"]);
    assert_eq!(found.unmatched.into_iter().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn nesting_is_bounded() {
    let deep = "${a:-".repeat(100_000);
    assert_eq!(expand(&deep), Err(WordProblem::TooDeep.to_string()));
}

#[test]
fn growth_is_bounded() {
    let env = vec![("a".to_owned(), "x".repeat(1 << 20))];
    let error = Lexer::new('\\').word("${a//x/xxxxxxxxxxxxxxxxxxxxxxxx}", &env).expect_err("too long");
    assert_eq!(error.problem, WordProblem::TooLong);
    let error = Lexer::new('\\').word(&"$a".repeat(20), &env).expect_err("too long");
    assert_eq!(error.problem, WordProblem::TooLong);
}

proptest! {
    #[test]
    fn never_panics(text in any::<String>()) {
        let _ = Lexer::new('\\').word(&text, &env());
    }

    #[test]
    fn never_panics_on_its_own_alphabet(text in "[ab$\\{}:?+#%/'\"<\\\\*\\- é]{0,40}", flags in 0..16) {
        let lexer = Lexer {
            escape: if flags & 1 == 0 { '\\' } else { '`' },
            raw_quotes: flags & 2 != 0,
            raw_escapes: flags & 4 != 0,
            skip_process_quotes: false,
            skip_unset: flags & 8 != 0,
        };
        let _ = lexer.words(&text, &env());
    }

    #[test]
    fn single_quoting_can_be_undone(text in "[^']{0,40}") {
        prop_assert_eq!(expand(&format!("'{text}'")), Ok(text));
    }

    #[test]
    fn escaping_can_be_undone(text in any::<String>()) {
        let escaped: String = text.chars().flat_map(|c| ['\\', c]).collect();
        prop_assert_eq!(expand(&escaped), Ok(text));
    }
}

/// A row of the table of words: a text, how it is read, and what BuildKit's lexer makes of it.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Row {
    env: Vec<String>,
    text: String,
    escape: String,
    raw_quotes: bool,
    raw_escapes: bool,
    skip_process_quotes: bool,
    skip_unset: bool,
    result: Option<String>,
    matched: BTreeSet<String>,
    unmatched: BTreeSet<String>,
    words: Vec<String>,
    error: Option<String>,
}

impl Row {
    fn lexer(&self) -> Lexer {
        Lexer {
            raw_quotes: self.raw_quotes,
            raw_escapes: self.raw_escapes,
            skip_process_quotes: self.skip_process_quotes,
            skip_unset: self.skip_unset,
            ..Lexer::new(self.escape.chars().next().unwrap_or('\\'))
        }
    }

    fn check(&self, env: &[(String, String)]) -> Result<(), String> {
        let word = self.lexer().word(&self.text, &env);
        let error = word.as_ref().err().map(ToString::to_string);
        if error != self.error {
            return Err(format!("{}: {error:?} instead of {:?}", self.text, self.error));
        }
        let Ok(word) = word else { return Ok(()) };
        if Some(&word.text) != self.result.as_ref() {
            return Err(format!("{}: {:?} instead of {:?}", self.text, word.text, self.result));
        }
        if (&word.matched, &word.unmatched) != (&self.matched, &self.unmatched) {
            return Err(format!("{}: looked up {:?} {:?}", self.text, word.matched, word.unmatched));
        }
        let (words, ..) = self.lexer().words(&self.text, &env).map_err(|e| e.to_string())?;
        match words == self.words {
            true => Ok(()),
            false => Err(format!("{}: {words:?} instead of {:?}", self.text, self.words)),
        }
    }
}

#[test]
fn reads_the_table_of_words_as_buildkit_does() {
    let rows = crate::diag::table::<Row>("words");
    let pair = |text: &String| text.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
    let env: Vec<(String, String)> = rows[0].env.iter().filter_map(pair).collect();
    let wrong: Vec<String> = rows[1..].iter().filter_map(|row| row.check(&env).err()).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}
