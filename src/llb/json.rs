//! Ops as protobuf JSON, for people and for comparing definitions.
//!
//! In: an [`Op`]. Out: a JSON value in which 64-bit integers are text, bytes are base64, enums are names and defaults are
//! left out, as Go's `protojson` prints `pb.Op`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::definition::{Definition, Vertex};
use super::ops::*;
use crate::image::Platform;

/// Returns an op as protobuf JSON.
pub fn op(op: &Op) -> Value {
    let inputs = list(&op.inputs, |i| Object::new().text("digest", i.digest.as_str()).long("index", i.index).done());
    let object = Object::new().items("inputs", inputs);
    let Some(kind) = &op.kind else { return object.done() };
    let (name, value) = match kind {
        OpKind::Exec(exec) => ("exec", exec_op(exec)),
        OpKind::Source(source) => ("source", source_op(source)),
        OpKind::File(file) => ("file", Object::new().items("actions", list(&file.actions, file_action)).done()),
        OpKind::Merge(merge) => {
            let inputs = list(&merge.inputs, |i| Object::new().long("input", *i).done());
            ("merge", Object::new().items("inputs", inputs).done())
        }
        OpKind::Diff(diff) => {
            let side = |input| Some(Object::new().long("input", input).done());
            ("diff", Object::new().some("lower", side(diff.lower)).some("upper", side(diff.upper)).done())
        }
    };
    let platform = op.platform.as_ref().map(platform);
    object.some(name, Some(value)).some("platform", platform).some("constraints", Some(json!({}))).done()
}

/// Returns a definition as lines of JSON, one op each, in the order of the definition and with its last op.
pub fn lines(definition: &Definition) -> Vec<String> {
    let inputs = |op: &Op| op.inputs.iter().map(|i| format!("{}:{}", i.digest, i.index)).collect::<Vec<_>>();
    let line = |vertex: &Arc<Vertex>| {
        json!({
            "digest": vertex.digest,
            "inputs": inputs(&vertex.op),
            "op": op(&vertex.op),
            "metadata": metadata(&vertex.metadata),
            "lines": vertex.lines.iter().flat_map(|range| range.start..=range.end).collect::<Vec<_>>(),
        })
    };
    let mut lines: Vec<String> = definition.vertices.iter().map(|vertex| line(vertex).to_string()).collect();
    if let (Some((digest, _)), Some(result)) = (definition.last_op(), &definition.result) {
        let last = Op { inputs: vec![Input::from(result)], ..Op::default() };
        lines.push(json!({ "digest": digest, "inputs": inputs(&last), "op": op(&last) }).to_string());
    }
    lines
}

fn metadata(metadata: &OpMetadata) -> Value {
    let group = metadata.progress_group.as_ref().map(|g| json!({ "id": g.id, "name": g.name, "weak": g.weak }));
    let ignore = metadata.ignore_cache.then_some(Value::Bool(true));
    let description = (!metadata.description.is_empty()).then(|| json!(metadata.description));
    Object::new().some("description", description).some("ignoreCache", ignore).some("progressGroup", group).done()
}

/// A JSON object that leaves defaults out.
struct Object(Map<String, Value>);

impl Object {
    fn new() -> Self {
        Self(Map::new())
    }

    fn done(self) -> Value {
        Value::Object(self.0)
    }

    fn some(mut self, name: &str, value: Option<Value>) -> Self {
        if let Some(value) = value {
            self.0.insert(name.into(), value);
        }
        self
    }

    fn text(self, name: &str, value: &str) -> Self {
        self.some(name, (!value.is_empty()).then(|| json!(value)))
    }

    fn texts(self, name: &str, values: &[String]) -> Self {
        self.some(name, (!values.is_empty()).then(|| json!(values)))
    }

    fn items(self, name: &str, values: Vec<Value>) -> Self {
        self.some(name, (!values.is_empty()).then_some(Value::Array(values)))
    }

    fn long(self, name: &str, value: i64) -> Self {
        self.some(name, (value != 0).then(|| json!(value.to_string())))
    }

    fn int(self, name: &str, value: i64) -> Self {
        self.some(name, (value != 0).then(|| json!(value)))
    }

    fn flag(self, name: &str, value: bool) -> Self {
        self.some(name, value.then_some(Value::Bool(true)))
    }

    fn choice(self, name: &str, value: usize, names: &[&str]) -> Self {
        self.some(name, (value != 0).then(|| json!(names[value])))
    }
}

fn list<T>(values: &[T], print: impl Fn(&T) -> Value) -> Vec<Value> {
    values.iter().map(print).collect()
}

fn platform(platform: &Platform) -> Value {
    Object::new()
        .text("Architecture", &platform.architecture)
        .text("OS", &platform.os)
        .text("Variant", &platform.variant)
        .text("OSVersion", &platform.os_version)
        .texts("OSFeatures", &platform.os_features)
        .done()
}

fn source_op(source: &SourceOp) -> Value {
    let attrs = (!source.attrs.is_empty()).then(|| json!(source.attrs));
    Object::new().text("identifier", &source.identifier).some("attrs", attrs).done()
}

fn exec_op(exec: &ExecOp) -> Value {
    let secret =
        |s: &SecretEnv| Object::new().text("ID", &s.id).text("name", &s.name).flag("optional", s.optional).done();
    let device = |d: &CdiDevice| Object::new().text("name", &d.name).flag("optional", d.optional).done();
    Object::new()
        .some("meta", Some(meta(&exec.meta)))
        .items("mounts", list(&exec.mounts, mount))
        .choice("network", exec.network as usize, &["UNSET", "HOST", "NONE"])
        .choice("security", exec.security as usize, &["SANDBOX", "INSECURE"])
        .items("secretenv", list(&exec.secret_env, secret))
        .items("cdiDevices", list(&exec.cdi_devices, device))
        .done()
}

fn meta(meta: &Meta) -> Value {
    let host = |h: &HostIp| Object::new().text("Host", &h.host).text("IP", &h.ip).done();
    let limit = |u: &Ulimit| Object::new().text("Name", &u.name).long("Soft", u.soft).long("Hard", u.hard).done();
    Object::new()
        .texts("args", &meta.args)
        .texts("env", &meta.env)
        .text("cwd", &meta.cwd)
        .text("user", &meta.user)
        .some("proxyEnv", meta.proxy_env.as_ref().map(proxy))
        .items("extraHosts", list(&meta.extra_hosts, host))
        .text("hostname", &meta.hostname)
        .items("ulimit", list(&meta.ulimit, limit))
        .text("cgroupParent", &meta.cgroup_parent)
        .flag("removeMountStubsRecursive", meta.remove_mount_stubs_recursive)
        .items("validExitCodes", list(&meta.valid_exit_codes, |code| json!(code)))
        .done()
}

fn proxy(proxy: &ProxyEnv) -> Value {
    Object::new()
        .text("httpProxy", &proxy.http_proxy)
        .text("httpsProxy", &proxy.https_proxy)
        .text("ftpProxy", &proxy.ftp_proxy)
        .text("noProxy", &proxy.no_proxy)
        .text("allProxy", &proxy.all_proxy)
        .done()
}

fn mount(mount: &Mount) -> Value {
    let cache = mount.cache.as_ref().map(|cache| {
        let names = ["SHARED", "PRIVATE", "LOCKED"];
        Object::new().text("ID", &cache.id).choice("sharing", cache.sharing as usize, &names).done()
    });
    Object::new()
        .long("input", mount.input)
        .text("selector", &mount.selector)
        .text("dest", &mount.dest)
        .long("output", mount.output)
        .flag("readonly", mount.readonly)
        .choice("mountType", mount.mount_type as usize, &["BIND", "SECRET", "SSH", "CACHE", "TMPFS"])
        .some("TmpfsOpt", mount.tmpfs_size.map(|size| Object::new().long("size", size).done()))
        .some("cacheOpt", cache)
        .some("secretOpt", mount.secret.as_ref().map(file_opt))
        .some("SSHOpt", mount.ssh.as_ref().map(file_opt))
        .text("resultID", &mount.result_id)
        .choice("contentCache", mount.content_cache as usize, &["DEFAULT", "ON", "OFF"])
        .done()
}

fn file_opt(option: &FileOpt) -> Value {
    Object::new()
        .text("ID", &option.id)
        .int("uid", option.uid.into())
        .int("gid", option.gid.into())
        .int("mode", option.mode.into())
        .flag("optional", option.optional)
        .done()
}

fn file_action(action: &FileAction) -> Value {
    let (name, value) = match &action.kind {
        FileActionKind::Copy(copy) => ("copy", copy_action(copy)),
        FileActionKind::Mkfile(file) => ("mkfile", mkfile_action(file)),
        FileActionKind::Mkdir(dir) => ("mkdir", mkdir_action(dir)),
        FileActionKind::Rm(rm) => ("rm", rm_action(rm)),
        FileActionKind::Symlink(link) => ("symlink", symlink_action(link)),
    };
    Object::new()
        .long("input", action.input)
        .long("secondaryInput", action.secondary_input)
        .long("output", action.output)
        .some(name, Some(value))
        .done()
}

fn copy_action(copy: &CopyAction) -> Value {
    Object::new()
        .text("src", &copy.src)
        .text("dest", &copy.dest)
        .some("owner", copy.owner.as_ref().map(owner))
        .int("mode", copy.mode.into())
        .flag("followSymlink", copy.follow_symlink)
        .flag("dirCopyContents", copy.dir_copy_contents)
        .flag("attemptUnpackDockerCompatibility", copy.attempt_unpack)
        .flag("createDestPath", copy.create_dest_path)
        .flag("allowWildcard", copy.allow_wildcard)
        .flag("allowEmptyWildcard", copy.allow_empty_wildcard)
        .long("timestamp", copy.timestamp)
        .texts("includePatterns", &copy.include_patterns)
        .texts("excludePatterns", &copy.exclude_patterns)
        .flag("alwaysReplaceExistingDestPaths", copy.always_replace)
        .text("modeStr", &copy.mode_str)
        .texts("requiredPaths", &copy.required_paths)
        .done()
}

fn mkfile_action(file: &MkfileAction) -> Value {
    Object::new()
        .text("path", &file.path)
        .int("mode", file.mode.into())
        .text("data", &STANDARD.encode(&file.data))
        .some("owner", file.owner.as_ref().map(owner))
        .long("timestamp", file.timestamp)
        .done()
}

fn mkdir_action(dir: &MkdirAction) -> Value {
    Object::new()
        .text("path", &dir.path)
        .int("mode", dir.mode.into())
        .flag("makeParents", dir.make_parents)
        .some("owner", dir.owner.as_ref().map(owner))
        .long("timestamp", dir.timestamp)
        .done()
}

fn rm_action(rm: &RmAction) -> Value {
    Object::new()
        .text("path", &rm.path)
        .flag("allowNotFound", rm.allow_not_found)
        .flag("allowWildcard", rm.allow_wildcard)
        .done()
}

fn symlink_action(link: &SymlinkAction) -> Value {
    Object::new()
        .text("oldpath", &link.oldpath)
        .text("newpath", &link.newpath)
        .some("owner", link.owner.as_ref().map(owner))
        .long("timestamp", link.timestamp)
        .done()
}

fn owner(owner: &ChownOpt) -> Value {
    Object::new().some("user", owner.user.as_ref().map(user)).some("group", owner.group.as_ref().map(user)).done()
}

fn user(user: &UserOpt) -> Value {
    match user {
        UserOpt::ById(id) => json!({ "byID": id }),
        UserOpt::ByName { name, input } => {
            let named = Object::new().text("name", name).long("input", *input).done();
            json!({ "byName": named })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_left_out_and_long_numbers_are_text() {
        let dir = MkdirAction { path: "/a".into(), mode: 493, make_parents: true, owner: None, timestamp: -1 };
        let action = FileAction { input: 0, secondary_input: -1, output: 0, kind: FileActionKind::Mkdir(dir) };
        let kind = Some(OpKind::File(FileOp { actions: vec![action] }));
        let expected = json!({
            "file": {"actions": [{"secondaryInput": "-1",
                "mkdir": {"path": "/a", "mode": 493, "makeParents": true, "timestamp": "-1"}}]},
            "constraints": {}
        });
        assert_eq!(op(&Op { kind, ..Op::default() }), expected);
    }
}
