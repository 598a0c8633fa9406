//! Tests of mounts.

use super::*;
use crate::dockerfile::word::Lexer;
use proptest::prelude::*;

fn mount(text: &str) -> Result<MountSpec, String> {
    let env = vec![("dir".to_owned(), "/x".to_owned())];
    let mut expand = |value: &str| Lexer::new('\\').word(value, &env).map(|expanded| expanded.text);
    parse(text, &mut expand).map_err(|error| error.to_string())
}

#[test]
fn reads_each_type() {
    let bind = mount("from=a,src=/b,target=${dir}/c").expect("valid");
    assert_eq!((bind.from.as_str(), bind.source.as_str(), bind.target.as_str()), ("a", "/b", "/x/c"));
    assert!(bind.readonly && bind.kind == MountType::Bind);
    let cache = mount("TYPE=Cache,dst=/c,id=i,sharing=LOCKED,mode=0755,uid=1,gid=2").expect("valid");
    assert_eq!((cache.id.as_str(), cache.sharing, cache.mode), ("i", Some(Sharing::Locked), Some(0o755)));
    assert_eq!((cache.uid, cache.gid, cache.readonly), (Some(1), Some(2), false));
    let tmpfs = mount("type=tmpfs,size=64m,target=/t").expect("valid");
    assert_eq!((tmpfs.kind, tmpfs.size, tmpfs.readonly), (MountType::Tmpfs, 64 << 20, false));
    let secret = mount("type=secret,required,id=s,env=E").expect("valid");
    assert_eq!((secret.required, secret.env.as_deref(), secret.readonly), (true, Some("E"), true));
    assert_eq!(mount("type=ssh,required=false").map(|ssh| (ssh.kind, ssh.required)), Ok((MountType::Ssh, false)));
    assert_eq!(mount("\"target=/a,b\",rw").map(|m| (m.target, m.readonly)), Ok(("/a,b".to_owned(), false)));
    assert_eq!(mount("target=/a,ro=0").map(|m| m.readonly), Ok(false));
}

#[test]
fn says_what_is_wrong() {
    let cases = [
        ("typ=tmpfs", "unexpected key 'typ' in 'typ=tmpfs' (did you mean type?)"),
        ("type=tmp", "unsupported mount type \"tmp\" (did you mean tmpfs?)"),
        ("type=bnid", "unsupported mount type \"bnid\" (did you mean bind?)"),
        ("type=cache,sharing=foo", "unsupported sharing value \"foo\""),
        ("size=1m,target=/x", "unexpected key 'size' for mount type 'bind'"),
        ("size=1m,type=tmpfs", "unexpected key 'size' for mount type 'bind'"),
        ("required", "unexpected key 'required' for mount type 'bind'"),
        ("zzzzzz", "invalid field 'zzzzzz' must be a key=value pair"),
        ("type=secret", "invalid secret mount. one of source, target required"),
        ("type=secret,src=a,id=b", "both source and id can't be set"),
        ("type=secret,id=a,from=b", "secret mount should not have a from"),
        ("type=secret,id=a,sharing=locked", "secret mount should not define sharing"),
        ("type=bind,uid=1", "uid not allowed for \"bind\" type mounts"),
        ("type=tmpfs,mode=1", "mode not allowed for \"tmpfs\" type mounts"),
        ("type=bind,sharing=locked", "invalid cache sharing set for bind mount"),
        ("type=cache,mode=9", "invalid value 9 for mode"),
        ("type=cache,uid=+1", "invalid value +1 for uid"),
        ("ro=maybe", "invalid value for ro: maybe"),
        ("type=tmpfs,size=x", "invalid value for size: x"),
        ("target=a\"b", "failed to parse csv mounts: parse error on line 1, column 9: bare \" in non-quoted field"),
        ("target=${x", "failed to process \"${x\": syntax error: missing '}'"),
    ];
    for (text, want) in cases {
        assert_eq!(mount(text), Err(want.to_owned()), "{text}");
    }
}

#[test]
fn from_is_known_before_expansion() {
    assert_eq!(from_of("target=$x,FROM=a,size=$y").expect("valid"), "a");
    assert_eq!(from_of("from=a$").expect("valid"), "a$");
    assert_eq!(from_of("bad").expect("valid"), "");
    let error = from_of("from=$x,target=/x").expect_err("variable");
    assert_eq!(error.to_string(), "'from' doesn't support variable expansion, define alias stage instead");
}

proptest! {
    #[test]
    fn never_panics(text in "((type|from|size|mode|ro)=?[a-z0-9$\"]{0,5},?){0,4}") {
        let _ = (mount(&text), from_of(&text));
    }
}
