//! Keys against tables of ops: `testdata/cachekeys`, one `{op, digest, inputs}` a line. The digests were computed by an
//! independent program; those marked `exported` were also found in caches that BuildKit wrote.

use serde_json::Value;

use super::*;
use crate::image::Platform;
use crate::llb::*;
use crate::solver::record_digest;

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value, key: &str) -> Vec<String> {
    list(value, key).iter().map(|v| v.as_str().unwrap().to_owned()).collect()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// 64-bit numbers are texts in protobuf JSON.
fn number(value: &Value, key: &str) -> i64 {
    value[key].as_str().map_or_else(|| value[key].as_i64().unwrap_or(0), |text| text.parse().unwrap())
}

fn flag(value: &Value, key: &str) -> bool {
    value[key].as_bool().unwrap_or(false)
}

fn one_of<T: Copy>(value: &Value, key: &str, names: &[(&str, T)]) -> T {
    let name = value[key].as_str().unwrap_or(names[0].0);
    names.iter().find(|n| n.0 == name).unwrap_or_else(|| panic!("{name}")).1
}

fn exec_op(e: &Value) -> ExecOp {
    let secret_env = list(e, "secretenv").iter();
    ExecOp {
        meta: meta(&e["meta"]),
        mounts: list(e, "mounts").iter().map(mount).collect(),
        network: one_of(e, "network", &[("UNSET", NetMode::Unset), ("HOST", NetMode::Host), ("NONE", NetMode::None)]),
        security: one_of(e, "security", &[("SANDBOX", SecurityMode::Sandbox), ("INSECURE", SecurityMode::Insecure)]),
        secret_env: secret_env
            .map(|s| SecretEnv { id: text(s, "ID"), name: text(s, "name"), optional: flag(s, "optional") })
            .collect(),
        cdi_devices: list(e, "cdiDevices")
            .iter()
            .map(|d| CdiDevice { name: text(d, "name"), optional: flag(d, "optional") })
            .collect(),
    }
}

fn meta(m: &Value) -> Meta {
    let proxy = m.get("proxyEnv").map(|p| ProxyEnv { http_proxy: text(p, "httpProxy"), ..ProxyEnv::default() });
    let limit = |u: &Value| Ulimit { name: text(u, "Name"), soft: number(u, "Soft"), hard: number(u, "Hard") };
    Meta {
        args: texts(m, "args"),
        env: texts(m, "env"),
        cwd: text(m, "cwd"),
        user: text(m, "user"),
        proxy_env: proxy,
        extra_hosts: list(m, "extraHosts")
            .iter()
            .map(|h| HostIp { host: text(h, "Host"), ip: text(h, "IP") })
            .collect(),
        hostname: text(m, "hostname"),
        ulimit: list(m, "ulimit").iter().map(limit).collect(),
        cgroup_parent: text(m, "cgroupParent"),
        remove_mount_stubs_recursive: flag(m, "removeMountStubsRecursive"),
        valid_exit_codes: list(m, "validExitCodes").iter().map(|c| c.as_i64().unwrap() as i32).collect(),
    }
}

fn mount(m: &Value) -> Mount {
    use MountType::*;
    let types = [("BIND", Bind), ("SECRET", Secret), ("SSH", Ssh), ("CACHE", Cache), ("TMPFS", Tmpfs)];
    let content = [("DEFAULT", ContentCache::Default), ("ON", ContentCache::On), ("OFF", ContentCache::Off)];
    let sharing = [("SHARED", Sharing::Shared), ("PRIVATE", Sharing::Private), ("LOCKED", Sharing::Locked)];
    let file = |f: &Value| FileOpt {
        id: text(f, "ID"),
        uid: number(f, "uid") as u32,
        gid: number(f, "gid") as u32,
        mode: number(f, "mode") as u32,
        optional: flag(f, "optional"),
    };
    Mount {
        input: number(m, "input"),
        selector: text(m, "selector"),
        dest: text(m, "dest"),
        output: number(m, "output"),
        readonly: flag(m, "readonly"),
        mount_type: one_of(m, "mountType", &types),
        tmpfs_size: m.get("TmpfsOpt").map(|t| number(t, "size")),
        cache: m.get("cacheOpt").map(|c| CacheOpt { id: text(c, "ID"), sharing: one_of(c, "sharing", &sharing) }),
        secret: m.get("secretOpt").map(file),
        ssh: m.get("SSHOpt").map(file),
        result_id: text(m, "resultID"),
        content_cache: one_of(m, "contentCache", &content),
    }
}

fn action(a: &Value) -> FileAction {
    let kind = if let Some(c) = a.get("copy") {
        FileActionKind::Copy(copy(c))
    } else if let Some(m) = a.get("mkfile") {
        let data = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text(m, "data")).unwrap();
        let (path, mode, owner, timestamp) =
            (text(m, "path"), number(m, "mode") as i32, owner(m), number(m, "timestamp"));
        FileActionKind::Mkfile(MkfileAction { path, mode, data, owner, timestamp })
    } else if let Some(m) = a.get("mkdir") {
        let (path, mode, owner, timestamp) =
            (text(m, "path"), number(m, "mode") as i32, owner(m), number(m, "timestamp"));
        FileActionKind::Mkdir(MkdirAction { path, mode, make_parents: flag(m, "makeParents"), owner, timestamp })
    } else if let Some(r) = a.get("rm") {
        let (allow_not_found, allow_wildcard) = (flag(r, "allowNotFound"), flag(r, "allowWildcard"));
        FileActionKind::Rm(RmAction { path: text(r, "path"), allow_not_found, allow_wildcard })
    } else {
        let s = &a["symlink"];
        let (oldpath, newpath) = (text(s, "oldpath"), text(s, "newpath"));
        FileActionKind::Symlink(SymlinkAction { oldpath, newpath, owner: owner(s), timestamp: number(s, "timestamp") })
    };
    let (input, secondary_input) = (number(a, "input"), number(a, "secondaryInput"));
    FileAction { input, secondary_input, output: number(a, "output"), kind }
}

fn copy(c: &Value) -> CopyAction {
    CopyAction {
        src: text(c, "src"),
        dest: text(c, "dest"),
        owner: owner(c),
        mode: number(c, "mode") as i32,
        follow_symlink: flag(c, "followSymlink"),
        dir_copy_contents: flag(c, "dirCopyContents"),
        attempt_unpack: flag(c, "attemptUnpackDockerCompatibility"),
        create_dest_path: flag(c, "createDestPath"),
        allow_wildcard: flag(c, "allowWildcard"),
        allow_empty_wildcard: flag(c, "allowEmptyWildcard"),
        timestamp: number(c, "timestamp"),
        include_patterns: texts(c, "includePatterns"),
        exclude_patterns: texts(c, "excludePatterns"),
        always_replace: flag(c, "alwaysReplaceExistingDestPaths"),
        mode_str: text(c, "modeStr"),
        required_paths: texts(c, "requiredPaths"),
    }
}

fn owner(value: &Value) -> Option<ChownOpt> {
    let who = |w: &Value| match w.get("byName") {
        Some(name) => UserOpt::ByName { name: text(name, "name"), input: number(name, "input") },
        None => UserOpt::ById(number(w, "byID") as u32),
    };
    value.get("owner").map(|o| ChownOpt { user: o.get("user").map(who), group: o.get("group").map(who) })
}

fn key(op: &Value) -> OpKey {
    let inputs = op["inputs"].as_u64().unwrap() as usize;
    if let Some(e) = op.get("exec") {
        let p = &op["platform"];
        let variant = text(p, "Variant");
        return exec(
            &exec_op(e),
            &Platform { variant, ..Platform::new(&text(p, "OS"), &text(p, "Architecture")) },
            inputs,
        );
    }
    if let Some(f) = op.get("file") {
        return file(&FileOp { actions: list(f, "actions").iter().map(action).collect() }, inputs);
    }
    if let Some(m) = op.get("merge") {
        return merge(&MergeOp { inputs: list(m, "inputs").iter().map(|i| number(i, "input")).collect() });
    }
    let (lower, upper) = (number(&op["diff"]["lower"], "input"), number(&op["diff"]["upper"], "input"));
    diff(&DiffOp { lower, upper })
}

fn check_table(table: &str, at_least: usize) {
    let rows: Vec<Value> = serde_json::from_str(table).unwrap();
    assert!(rows.len() >= at_least, "{} rows", rows.len());
    for row in rows {
        let key = key(&row["op"]);
        let CacheDigest::Stable(digest) = &key.map.digests[0] else { panic!("ops are stable") };
        assert_eq!(digest.as_str(), row["digest"], "{}", row["op"]);
        let content = |paths: &Vec<Selector>| paths.iter().map(path_json).collect::<Vec<_>>();
        let inputs = key.map.inputs.iter().zip(&key.content);
        for ((input, paths), expected) in inputs.zip(list(&row, "inputs")) {
            assert_eq!(input.selector.as_ref().map_or("", |s| s.as_str()), text(expected, "selector"), "{}", row["op"]);
            assert_eq!(paths.as_ref().map(content), expected["content"].as_array().cloned(), "{}", row["op"]);
            assert_eq!(input.content, paths.is_some());
        }
        assert_eq!(key.map.inputs.len(), list(&row, "inputs").len());
    }
}

fn path_json(path: &Selector) -> Value {
    let mut out = serde_json::json!({ "path": path.path });
    let texts = [("inc", &path.include), ("exc", &path.exclude)];
    let flags = [("follow", path.follow), ("wild", path.wildcard)];
    for (key, _) in flags.iter().filter(|f| f.1) {
        out[*key] = true.into();
    }
    for (key, list) in texts.iter().filter(|t| !t.1.is_empty()) {
        out[*key] = (*list).clone().into();
    }
    if path.path.is_empty() { serde_json::json!({ "path": "" }) } else { out }
}

#[test]
fn exec_ops() {
    check_table(include_str!("../../../testdata/cachekeys/exec.json"), 100);
}

#[test]
fn file_ops() {
    check_table(include_str!("../../../testdata/cachekeys/file.json"), 100);
}

#[test]
fn merge_and_diff_ops() {
    check_table(include_str!("../../../testdata/cachekeys/other.json"), 1);
    let key = diff(&DiffOp { lower: -1, upper: 0 });
    let json = r#"{"Type":"buildkit.diff.v0","Diff":{"lower":{"input":-1},"upper":{}}}"#;
    assert_eq!(key.map.digests, [CacheDigest::Stable(Digest::compute(json))]);
    assert_eq!(key.map.inputs.len(), 1);
}

fn sha(hex: &str) -> Digest {
    format!("sha256:{hex}").parse().unwrap()
}

fn assert_stable(found: &CacheDigest, hex: &str) {
    assert_eq!(*found, CacheDigest::Stable(sha(hex)));
}

#[test]
fn images_have_a_key_of_what_they_resolve_to_and_one_of_their_layers() {
    let config = br#"{"rootfs":{"type":"layers","diff_ids":[
        "sha256:b12755614bc4d2c03efd0c891a981738648204e0098b5abe254474055b6d4dc6",
        "sha256:b5b79dc176287313578da537a4e4bfb109b91d388b06382d2eb24e533dfc9d30"]}}"#;
    let digest = sha("b51a7110fd77d11626fe0b6dfbbd005a398426107e9cc192443e8f78181ac15b");
    let platform = Platform::new("linux", "amd64");
    let of = |config: &[u8]| image(&ImageKey { digest: &digest, platform: &platform, layer_limit: 0, config });
    let both = of(config);
    assert_stable(&both[0], "180c86dd19e61e87ee98d4cb5fbe233948b35556d6431a926acc00178723cca1");
    assert_stable(&both[1], "6a057caaf5524c7e154303d0a423fd92cc3485f0ad65c779c70a5f59a92ad23d");
    assert_eq!(of(br#"{"rootfs":{"type":"layers"}}"#).len(), 1, "no layers, no second key");
    assert_eq!(of(b"{").len(), 2, "an unreadable config stands for itself");
}

#[test]
fn files_from_web_servers() {
    let checksum = sha("d32c88a9d86bc3ca189320f132ceb58b32d7eda9f83f7ee619ef91bc5bf57a04");
    let key = HttpKey {
        filename: "w.txt",
        perm: 0,
        uid: 0,
        gid: 0,
        checksum: &checksum,
        last_mod_time: "Tue, 14 Nov 2023 22:13:20 GMT",
        auth_header_secret: "",
        header: &[],
    };
    assert_stable(&http(&key), "aac864b64c08e16d3a2f521254a85800a6f405b024d6e8b81b9720637d4a8993");
    let pinned = HttpKey { last_mod_time: "", ..key };
    assert_stable(&http(&pinned), "b3aabe73b519e3fcc3055bdae6ae2d8ed74ba5aee7acef1a9ddbf1da001e2969");
}

#[test]
fn commits() {
    let plain = GitKey { commit: "1bed1c45096599bb8968bda05607379e2ae198c8", ..GitKey::default() };
    assert_stable(&git(&plain), "e98a189a7b2c332b1b3722f728c3690368b4745d558cb51410852e0b546f6069");
    let kept = GitKey { keep_git_dir: true, reference: "refs/heads/main", subdir: "sub", ..plain };
    assert_stable(&git(&kept), "917bb0e47a2ab044a89d6ac54f10ea586da98ce9d124c23a0d142d659ae7b12b");
    assert_eq!(git(&GitKey { mtime: "checkout", ..plain }), git(&plain));
}

#[test]
fn local_directories_are_random() {
    let key = LocalKey { session_id: "s", include_patterns: None, exclude_patterns: None, follow_paths: None };
    assert!(matches!(local("context", &key), CacheDigest::Random(_)));
    assert_ne!(local("context", &key), local("context", &LocalKey { session_id: "t", ..key }));
}

#[test]
fn record_digests_are_those_buildkit_exports() {
    let source = sha("180c86dd19e61e87ee98d4cb5fbe233948b35556d6431a926acc00178723cca1");
    assert_eq!(record_digest(&source, 0), sha("43dc2186fabd446f231ffc596ce16574ad4b20e3a7f722fc05068ad603b89dfa"));
}
