//! Protobuf JSON back to ops, so that the encoder can be held against bytes that BuildKit wrote.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild::image::Platform;
use rbuild::llb::*;
use serde_json::Value;

/// Reads an op.
pub(crate) fn op(json: &Value) -> Op {
    let inputs =
        list(json, "inputs", |i| Input { digest: text(i, "digest").parse().expect("digest"), index: long(i, "index") });
    let kind = if let Some(exec) = json.get("exec") {
        Some(OpKind::Exec(Box::new(exec_op(exec))))
    } else if let Some(source) = json.get("source") {
        let attrs = source.get("attrs").map(|a| serde_json::from_value(a.clone()).expect("attrs"));
        Some(OpKind::Source(SourceOp { identifier: text(source, "identifier"), attrs: attrs.unwrap_or_default() }))
    } else if let Some(file) = json.get("file") {
        Some(OpKind::File(FileOp { actions: list(file, "actions", action) }))
    } else {
        json.get("merge").map(|m| OpKind::Merge(MergeOp { inputs: list(m, "inputs", |i| long(i, "input")) }))
    };
    Op { inputs, kind, platform: json.get("platform").map(platform) }
}

fn text(json: &Value, name: &str) -> String {
    json.get(name).map(|v| v.as_str().expect("text").to_owned()).unwrap_or_default()
}

fn long(json: &Value, name: &str) -> i64 {
    json.get(name).map_or(0, |v| v.as_str().expect("number as text").parse().expect("number"))
}

fn int(json: &Value, name: &str) -> i64 {
    json.get(name).map_or(0, |v| v.as_i64().expect("number"))
}

fn flag(json: &Value, name: &str) -> bool {
    json.get(name).is_some_and(|v| v.as_bool().expect("boolean"))
}

fn texts(json: &Value, name: &str) -> Vec<String> {
    list(json, name, |v| v.as_str().expect("text").to_owned())
}

fn list<T>(json: &Value, name: &str, read: impl Fn(&Value) -> T) -> Vec<T> {
    json.get(name).map(|v| v.as_array().expect("list").iter().map(read).collect()).unwrap_or_default()
}

fn platform(json: &Value) -> Platform {
    Platform {
        architecture: text(json, "Architecture"),
        os: text(json, "OS"),
        variant: text(json, "Variant"),
        os_version: text(json, "OSVersion"),
        os_features: texts(json, "OSFeatures"),
    }
}

fn exec_op(json: &Value) -> ExecOp {
    ExecOp {
        meta: meta(&json["meta"]),
        mounts: list(json, "mounts", mount),
        network: match text(json, "network").as_str() {
            "HOST" => NetMode::Host,
            "NONE" => NetMode::None,
            _ => NetMode::Unset,
        },
        security: match text(json, "security").as_str() {
            "INSECURE" => SecurityMode::Insecure,
            _ => SecurityMode::Sandbox,
        },
        secret_env: list(json, "secretenv", |s| SecretEnv {
            id: text(s, "ID"),
            name: text(s, "name"),
            optional: flag(s, "optional"),
        }),
        cdi_devices: Vec::new(),
    }
}

fn meta(json: &Value) -> Meta {
    let proxy = |p: &Value| ProxyEnv {
        http_proxy: text(p, "httpProxy"),
        https_proxy: text(p, "httpsProxy"),
        ftp_proxy: text(p, "ftpProxy"),
        no_proxy: text(p, "noProxy"),
        all_proxy: text(p, "allProxy"),
    };
    Meta {
        args: texts(json, "args"),
        env: texts(json, "env"),
        cwd: text(json, "cwd"),
        user: text(json, "user"),
        proxy_env: json.get("proxyEnv").or(json.get("proxy_env")).map(proxy),
        extra_hosts: list(json, "extraHosts", |h| HostIp { host: text(h, "Host"), ip: text(h, "IP") }),
        hostname: text(json, "hostname"),
        ulimit: list(json, "ulimit", |u| Ulimit {
            name: text(u, "Name"),
            soft: long(u, "Soft"),
            hard: long(u, "Hard"),
        }),
        cgroup_parent: text(json, "cgroupParent"),
        remove_mount_stubs_recursive: flag(json, "removeMountStubsRecursive"),
        valid_exit_codes: Vec::new(),
    }
}

fn mount(json: &Value) -> Mount {
    let file = |o: &Value| FileOpt {
        id: text(o, "ID"),
        uid: int(o, "uid") as u32,
        gid: int(o, "gid") as u32,
        mode: int(o, "mode") as u32,
        optional: flag(o, "optional"),
    };
    let cache = |c: &Value| CacheOpt {
        id: text(c, "ID"),
        sharing: match text(c, "sharing").as_str() {
            "PRIVATE" => Sharing::Private,
            "LOCKED" => Sharing::Locked,
            _ => Sharing::Shared,
        },
    };
    Mount {
        input: long(json, "input"),
        selector: text(json, "selector"),
        dest: text(json, "dest"),
        output: long(json, "output"),
        readonly: flag(json, "readonly"),
        mount_type: match text(json, "mountType").as_str() {
            "SECRET" => MountType::Secret,
            "SSH" => MountType::Ssh,
            "CACHE" => MountType::Cache,
            "TMPFS" => MountType::Tmpfs,
            _ => MountType::Bind,
        },
        tmpfs_size: json.get("TmpfsOpt").map(|t| long(t, "size")),
        cache: json.get("cacheOpt").map(cache),
        secret: json.get("secretOpt").map(file),
        ssh: json.get("SSHOpt").map(file),
        result_id: text(json, "resultID"),
        content_cache: ContentCache::Default,
    }
}

fn action(json: &Value) -> FileAction {
    let kind = if let Some(c) = json.get("copy") {
        FileActionKind::Copy(copy(c))
    } else if let Some(f) = json.get("mkfile") {
        FileActionKind::Mkfile(MkfileAction {
            path: text(f, "path"),
            mode: int(f, "mode") as i32,
            data: STANDARD.decode(text(f, "data")).expect("base64"),
            owner: f.get("owner").map(owner),
            timestamp: long(f, "timestamp"),
        })
    } else {
        let d = &json["mkdir"];
        FileActionKind::Mkdir(MkdirAction {
            path: text(d, "path"),
            mode: int(d, "mode") as i32,
            make_parents: flag(d, "makeParents"),
            owner: d.get("owner").map(owner),
            timestamp: long(d, "timestamp"),
        })
    };
    FileAction {
        input: long(json, "input"),
        secondary_input: long(json, "secondaryInput"),
        output: long(json, "output"),
        kind,
    }
}

fn copy(json: &Value) -> CopyAction {
    CopyAction {
        src: text(json, "src"),
        dest: text(json, "dest"),
        owner: json.get("owner").map(owner),
        mode: int(json, "mode") as i32,
        follow_symlink: flag(json, "followSymlink"),
        dir_copy_contents: flag(json, "dirCopyContents"),
        attempt_unpack: flag(json, "attemptUnpackDockerCompatibility"),
        create_dest_path: flag(json, "createDestPath"),
        allow_wildcard: flag(json, "allowWildcard"),
        allow_empty_wildcard: flag(json, "allowEmptyWildcard"),
        timestamp: long(json, "timestamp"),
        include_patterns: texts(json, "includePatterns"),
        exclude_patterns: texts(json, "excludePatterns"),
        always_replace: flag(json, "alwaysReplaceExistingDestPaths"),
        mode_str: text(json, "modeStr"),
        required_paths: texts(json, "requiredPaths"),
    }
}

fn owner(json: &Value) -> ChownOpt {
    let user = |u: &Value| match u.get("byName") {
        Some(named) => UserOpt::ByName { name: text(named, "name"), input: long(named, "input") },
        None => UserOpt::ById(int(u, "byID") as u32),
    };
    ChownOpt { user: json.get("user").map(user), group: json.get("group").map(user) }
}
