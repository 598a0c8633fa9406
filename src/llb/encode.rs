//! Ops to protobuf bytes, as Go's deterministic marshaller writes them.
//!
//! In: an [`Op`]. Out: bytes; nothing else is read or written.
//!
//! Invariants: plain fields come in ascending number with defaults left out, map entries are sorted by key and always write
//! both members, and the members of a `oneof` come after all plain fields of their message (cache specification 1.2).
//! Negative integers take ten bytes.

use super::ops::*;
use crate::image::Platform;

/// Encodes one op.
pub fn op(op: &Op) -> Vec<u8> {
    let mut w = Writer::default();
    for input in &op.inputs {
        w.message(1, |w| {
            w.text(1, input.digest.as_str());
            w.int(2, input.index);
        });
    }
    let Some(kind) = &op.kind else { return w.bytes };
    if let Some(platform) = &op.platform {
        w.message(10, |w| encode_platform(w, platform));
    }
    // Go clients always set the constraints message, so it is written even though it is empty.
    w.message(11, |_| {});
    match kind {
        OpKind::Exec(exec) => w.message(2, |w| encode_exec(w, exec)),
        OpKind::Source(source) => w.message(3, |w| encode_source(w, source)),
        OpKind::File(file) => w.message(4, |w| {
            for action in &file.actions {
                w.message(2, |w| encode_action(w, action));
            }
        }),
        OpKind::Merge(merge) => w.message(6, |w| {
            for input in &merge.inputs {
                w.message(1, |w| w.int(1, *input));
            }
        }),
        OpKind::Diff(diff) => w.message(7, |w| {
            w.message(1, |w| w.int(1, diff.lower));
            w.message(2, |w| w.int(1, diff.upper));
        }),
    }
    w.bytes
}

/// Appends fields to a message.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    fn key(&mut self, field: u32, wire: u32) {
        self.varint(u64::from(field << 3 | wire));
    }

    fn int(&mut self, field: u32, value: i64) {
        self.uint(field, value as u64);
    }

    fn uint(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.key(field, 0);
            self.varint(value);
        }
    }

    fn flag(&mut self, field: u32, value: bool) {
        self.uint(field, u64::from(value));
    }

    fn data(&mut self, field: u32, value: &[u8]) {
        if !value.is_empty() {
            self.always(field, value);
        }
    }

    fn text(&mut self, field: u32, value: &str) {
        self.data(field, value.as_bytes());
    }

    fn texts(&mut self, field: u32, values: &[String]) {
        for value in values {
            self.always(field, value.as_bytes());
        }
    }

    fn always(&mut self, field: u32, value: &[u8]) {
        self.key(field, 2);
        self.varint(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    fn message(&mut self, field: u32, fill: impl FnOnce(&mut Writer)) {
        let mut inner = Writer::default();
        fill(&mut inner);
        self.always(field, &inner.bytes);
    }
}

fn encode_platform(w: &mut Writer, platform: &Platform) {
    w.text(1, &platform.architecture);
    w.text(2, &platform.os);
    w.text(3, &platform.variant);
    w.text(4, &platform.os_version);
    w.texts(5, &platform.os_features);
}

fn encode_source(w: &mut Writer, source: &SourceOp) {
    w.text(1, &source.identifier);
    for (name, value) in &source.attrs {
        w.message(2, |w| {
            w.always(1, name.as_bytes());
            w.always(2, value.as_bytes());
        });
    }
}

fn encode_exec(w: &mut Writer, exec: &ExecOp) {
    w.message(1, |w| encode_meta(w, &exec.meta));
    for mount in &exec.mounts {
        w.message(2, |w| encode_mount(w, mount));
    }
    w.int(3, exec.network as i64);
    w.int(4, exec.security as i64);
    for secret in &exec.secret_env {
        w.message(5, |w| {
            w.text(1, &secret.id);
            w.text(2, &secret.name);
            w.flag(3, secret.optional);
        });
    }
    for device in &exec.cdi_devices {
        w.message(6, |w| {
            w.text(1, &device.name);
            w.flag(2, device.optional);
        });
    }
}

fn encode_meta(w: &mut Writer, meta: &Meta) {
    w.texts(1, &meta.args);
    w.texts(2, &meta.env);
    w.text(3, &meta.cwd);
    w.text(4, &meta.user);
    if let Some(proxy) = &meta.proxy_env {
        w.message(5, |w| encode_proxy(w, proxy));
    }
    for host in &meta.extra_hosts {
        w.message(6, |w| {
            w.text(1, &host.host);
            w.text(2, &host.ip);
        });
    }
    w.text(7, &meta.hostname);
    for limit in &meta.ulimit {
        w.message(9, |w| {
            w.text(1, &limit.name);
            w.int(2, limit.soft);
            w.int(3, limit.hard);
        });
    }
    w.text(10, &meta.cgroup_parent);
    w.flag(11, meta.remove_mount_stubs_recursive);
    if !meta.valid_exit_codes.is_empty() {
        let mut packed = Writer::default();
        meta.valid_exit_codes.iter().for_each(|code| packed.varint(i64::from(*code) as u64));
        w.always(12, &packed.bytes);
    }
}

fn encode_proxy(w: &mut Writer, proxy: &ProxyEnv) {
    w.text(1, &proxy.http_proxy);
    w.text(2, &proxy.https_proxy);
    w.text(3, &proxy.ftp_proxy);
    w.text(4, &proxy.no_proxy);
    w.text(5, &proxy.all_proxy);
}

fn encode_mount(w: &mut Writer, mount: &Mount) {
    w.int(1, mount.input);
    w.text(2, &mount.selector);
    w.text(3, &mount.dest);
    w.int(4, mount.output);
    w.flag(5, mount.readonly);
    w.int(6, mount.mount_type as i64);
    if let Some(size) = mount.tmpfs_size {
        w.message(19, |w| w.int(1, size));
    }
    if let Some(cache) = &mount.cache {
        w.message(20, |w| {
            w.text(1, &cache.id);
            w.int(2, cache.sharing as i64);
        });
    }
    for (field, option) in [(21, &mount.secret), (22, &mount.ssh)] {
        if let Some(option) = option {
            w.message(field, |w| encode_file_opt(w, option));
        }
    }
    w.text(23, &mount.result_id);
    w.int(24, mount.content_cache as i64);
}

fn encode_file_opt(w: &mut Writer, option: &FileOpt) {
    w.text(1, &option.id);
    w.uint(2, u64::from(option.uid));
    w.uint(3, u64::from(option.gid));
    w.uint(4, u64::from(option.mode));
    w.flag(5, option.optional);
}

fn encode_action(w: &mut Writer, action: &FileAction) {
    w.int(1, action.input);
    w.int(2, action.secondary_input);
    w.int(3, action.output);
    match &action.kind {
        FileActionKind::Copy(copy) => w.message(4, |w| encode_copy(w, copy)),
        FileActionKind::Mkfile(file) => w.message(5, |w| encode_mkfile(w, file)),
        FileActionKind::Mkdir(dir) => w.message(6, |w| encode_mkdir(w, dir)),
        FileActionKind::Rm(rm) => w.message(7, |w| {
            w.text(1, &rm.path);
            w.flag(2, rm.allow_not_found);
            w.flag(3, rm.allow_wildcard);
        }),
        FileActionKind::Symlink(link) => w.message(8, |w| {
            w.text(1, &link.oldpath);
            w.text(2, &link.newpath);
            encode_owner(w, 3, link.owner.as_ref());
            w.int(4, link.timestamp);
        }),
    }
}

fn encode_copy(w: &mut Writer, copy: &CopyAction) {
    w.text(1, &copy.src);
    w.text(2, &copy.dest);
    encode_owner(w, 3, copy.owner.as_ref());
    w.int(4, i64::from(copy.mode));
    w.flag(5, copy.follow_symlink);
    w.flag(6, copy.dir_copy_contents);
    w.flag(7, copy.attempt_unpack);
    w.flag(8, copy.create_dest_path);
    w.flag(9, copy.allow_wildcard);
    w.flag(10, copy.allow_empty_wildcard);
    w.int(11, copy.timestamp);
    w.texts(12, &copy.include_patterns);
    w.texts(13, &copy.exclude_patterns);
    w.flag(14, copy.always_replace);
    w.text(15, &copy.mode_str);
    w.texts(16, &copy.required_paths);
}

fn encode_mkfile(w: &mut Writer, file: &MkfileAction) {
    w.text(1, &file.path);
    w.int(2, i64::from(file.mode));
    w.data(3, &file.data);
    encode_owner(w, 4, file.owner.as_ref());
    w.int(5, file.timestamp);
}

fn encode_mkdir(w: &mut Writer, dir: &MkdirAction) {
    w.text(1, &dir.path);
    w.int(2, i64::from(dir.mode));
    w.flag(3, dir.make_parents);
    encode_owner(w, 4, dir.owner.as_ref());
    w.int(5, dir.timestamp);
}

fn encode_owner(w: &mut Writer, field: u32, owner: Option<&ChownOpt>) {
    let Some(owner) = owner else { return };
    w.message(field, |w| {
        for (field, user) in [(1, &owner.user), (2, &owner.group)] {
            if let Some(user) = user {
                w.message(field, |w| encode_user(w, user));
            }
        }
    });
}

fn encode_user(w: &mut Writer, user: &UserOpt) {
    match user {
        UserOpt::ByName { name, input } => w.message(1, |w| {
            w.text(1, name);
            w.int(2, *input);
        }),
        // A number in a oneof is written even when it is zero.
        UserOpt::ById(id) => {
            w.key(2, 0);
            w.varint(u64::from(*id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn platform_and_constraints_come_before_the_kind() {
        let source = SourceOp { identifier: "docker-image://x".into(), ..SourceOp::default() };
        let one =
            Op { kind: Some(OpKind::Source(source)), platform: Some(Platform::new("linux", "amd64")), ..Op::default() };
        let expected = b"\x52\x0e\x0a\x05amd64\x12\x05linux\x5a\x00\x1a\x12\x0a\x10docker-image://x";
        assert_eq!(op(&one), expected);
    }

    #[test]
    fn the_last_op_is_only_its_input() {
        let digest = Digest::compute(b"");
        let last = Op { inputs: vec![Input { digest: digest.clone(), index: 0 }], ..Op::default() };
        let mut expected = vec![0x0a, 0x49, 0x0a, 0x47];
        expected.extend_from_slice(digest.as_str().as_bytes());
        assert_eq!(op(&last), expected);
    }

    #[test]
    fn zero_owner_and_negative_numbers_are_written() {
        let rm = MkdirAction {
            owner: Some(ChownOpt { user: Some(UserOpt::ById(0)), group: None }),
            timestamp: -1,
            ..MkdirAction::default()
        };
        let mut w = Writer::default();
        encode_mkdir(&mut w, &rm);
        assert_eq!(w.bytes, [0x22, 4, 0x0a, 2, 0x10, 0, 0x28, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
    }
}
