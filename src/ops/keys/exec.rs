//! The cache map of an exec op (cache specification 2.3).

use serde::Serialize;

use super::{OpKey, clean, hash, is_default, join, outermost};
use crate::checksum::Selector;
use crate::image::Platform;
use crate::llb::{CacheOpt, CdiDevice, ContentCache, ExecOp, FileOpt, Meta, Mount, MountType, SecretEnv, Sharing};

/// Returns the key of an exec op with this many inputs.
pub fn exec(op: &ExecOp, platform: &Platform, inputs: usize) -> OpKey {
    let mut key = OpKey::plain(hash(&key_json(op, platform)), inputs);
    for input in 0..inputs {
        let mounts: Vec<&Mount> = op.mounts.iter().filter(|m| reads(m) && m.input == input as i64).collect();
        let Some(last) = mounts.last() else { continue };
        let selectors: Vec<String> = mounts.iter().map(|m| clean(&m.selector)).collect();
        let texts: Vec<&str> = selectors.iter().map(String::as_str).collect();
        let selector = join(&texts);
        // BuildKit assigns the flag at each mount instead of joining them, so the last mount decides.
        let content = by_content(last).then(|| content(selectors));
        key.set_input(input, Some(selector), content);
    }
    key
}

/// Returns what is hashed of an exec op.
pub(super) fn hashed(op: &ExecOp, platform: &Platform) -> serde_json::Value {
    serde_json::to_value(key_json(op, platform)).unwrap_or_default()
}

fn reads(mount: &Mount) -> bool {
    !matches!(mount.mount_type, MountType::Secret | MountType::Ssh | MountType::Tmpfs) && mount.input != -1
}

fn by_content(mount: &Mount) -> bool {
    let unchanged = mount.output == -1 || mount.readonly || clean(&mount.selector) == "/";
    match mount.content_cache {
        ContentCache::Off => false,
        ContentCache::On => unchanged,
        ContentCache::Default => unchanged && mount.dest != "/",
    }
}

fn content(selectors: Vec<String>) -> Vec<Selector> {
    let paths = outermost(selectors);
    if paths.iter().any(|path| path == "/") {
        return vec![Selector::default()];
    }
    paths.into_iter().map(|path| Selector { path, follow: true, ..Selector::default() }).collect()
}

#[derive(Serialize)]
struct Key<'a> {
    #[serde(rename = "Type")]
    kind: &'static str,
    #[serde(rename = "Exec")]
    exec: ExecJson<'a>,
    #[serde(rename = "OS")]
    os: &'a str,
    #[serde(rename = "Arch")]
    arch: &'a str,
    #[serde(rename = "Variant", skip_serializing_if = "is_default")]
    variant: &'a str,
    #[serde(rename = "OSVersion", skip_serializing_if = "is_default")]
    os_version: &'a str,
    #[serde(rename = "OSFeatures", skip_serializing_if = "is_default")]
    os_features: &'a [String],
}

#[derive(Serialize)]
struct ExecJson<'a> {
    meta: MetaJson<'a>,
    #[serde(skip_serializing_if = "is_default")]
    mounts: Vec<MountJson<'a>>,
    #[serde(skip_serializing_if = "is_default")]
    network: u8,
    #[serde(skip_serializing_if = "is_default")]
    security: u8,
    #[serde(rename = "secretenv", skip_serializing_if = "is_default")]
    secret_env: Vec<SecretEnvJson<'a>>,
    #[serde(rename = "cdiDevices", skip_serializing_if = "is_default")]
    cdi_devices: Vec<DeviceJson<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MetaJson<'a> {
    #[serde(skip_serializing_if = "is_default")]
    args: &'a [String],
    #[serde(skip_serializing_if = "is_default")]
    env: &'a [String],
    #[serde(skip_serializing_if = "is_default")]
    cwd: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    user: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    extra_hosts: Vec<HostJson<'a>>,
    #[serde(skip_serializing_if = "is_default")]
    hostname: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    ulimit: Vec<UlimitJson<'a>>,
    #[serde(skip_serializing_if = "is_default")]
    cgroup_parent: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    remove_mount_stubs_recursive: bool,
    #[serde(skip_serializing_if = "is_default")]
    valid_exit_codes: &'a [i32],
}

#[derive(Serialize, PartialEq)]
struct HostJson<'a> {
    #[serde(rename = "Host", skip_serializing_if = "is_default")]
    host: &'a str,
}

#[derive(Serialize, PartialEq)]
#[serde(rename_all = "PascalCase")]
struct UlimitJson<'a> {
    #[serde(skip_serializing_if = "is_default")]
    name: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    soft: i64,
    #[serde(skip_serializing_if = "is_default")]
    hard: i64,
}

#[derive(Serialize, PartialEq)]
struct SecretEnvJson<'a> {
    #[serde(rename = "ID", skip_serializing_if = "is_default")]
    id: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    name: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    optional: bool,
}

#[derive(Serialize, PartialEq)]
struct DeviceJson<'a> {
    #[serde(skip_serializing_if = "is_default")]
    name: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    optional: bool,
}

#[derive(Serialize, PartialEq)]
struct MountJson<'a> {
    #[serde(skip_serializing_if = "is_default")]
    input: i64,
    #[serde(skip_serializing_if = "is_default")]
    dest: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    output: i64,
    #[serde(skip_serializing_if = "is_default")]
    readonly: bool,
    #[serde(rename = "mountType", skip_serializing_if = "is_default")]
    mount_type: u8,
    #[serde(rename = "TmpfsOpt", skip_serializing_if = "Option::is_none")]
    tmpfs: Option<TmpfsJson>,
    #[serde(rename = "cacheOpt", skip_serializing_if = "Option::is_none")]
    cache: Option<CacheJson<'a>>,
    #[serde(rename = "secretOpt", skip_serializing_if = "Option::is_none")]
    secret: Option<FileJson<'a>>,
    #[serde(rename = "SSHOpt", skip_serializing_if = "Option::is_none")]
    ssh: Option<FileJson<'a>>,
    #[serde(rename = "resultID", skip_serializing_if = "is_default")]
    result_id: &'a str,
    #[serde(rename = "contentCache", skip_serializing_if = "is_default")]
    content_cache: u8,
}

#[derive(Serialize, PartialEq)]
struct TmpfsJson {
    #[serde(skip_serializing_if = "is_default")]
    size: i64,
}

#[derive(Serialize, PartialEq)]
struct CacheJson<'a> {
    #[serde(rename = "ID", skip_serializing_if = "is_default")]
    id: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    sharing: u8,
}

#[derive(Serialize, PartialEq)]
struct FileJson<'a> {
    #[serde(rename = "ID", skip_serializing_if = "is_default")]
    id: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    uid: u32,
    #[serde(skip_serializing_if = "is_default")]
    gid: u32,
    #[serde(skip_serializing_if = "is_default")]
    mode: u32,
    #[serde(skip_serializing_if = "is_default")]
    optional: bool,
}

fn key_json<'a>(op: &'a ExecOp, platform: &'a Platform) -> Key<'a> {
    let mounts = if only_root(op) { Vec::new() } else { op.mounts.iter().map(mount_json).collect() };
    let exec = ExecJson {
        meta: meta_json(&op.meta),
        mounts,
        network: op.network as u8,
        security: op.security as u8,
        secret_env: op.secret_env.iter().map(secret_env_json).collect(),
        cdi_devices: op.cdi_devices.iter().map(device_json).collect(),
    };
    Key {
        kind: "buildkit.exec.v0",
        exec,
        os: &platform.os,
        arch: &platform.architecture,
        variant: &platform.variant,
        os_version: &platform.os_version,
        os_features: &platform.os_features,
    }
}

/// A single plain writable root is left out of the key.
fn only_root(op: &ExecOp) -> bool {
    let [mount] = op.mounts.as_slice() else { return false };
    let special = mount.cache.is_some() || mount.ssh.is_some() || mount.secret.is_some() || !mount.result_id.is_empty();
    let plain = mount.mount_type == MountType::Bind && !mount.readonly && mount.selector.is_empty();
    mount.dest == "/" && plain && !special
}

fn meta_json(meta: &Meta) -> MetaJson<'_> {
    MetaJson {
        args: &meta.args,
        env: &meta.env,
        cwd: &meta.cwd,
        user: &meta.user,
        extra_hosts: meta.extra_hosts.iter().map(|h| HostJson { host: &h.host }).collect(),
        hostname: &meta.hostname,
        ulimit: meta.ulimit.iter().map(|u| UlimitJson { name: &u.name, soft: u.soft, hard: u.hard }).collect(),
        cgroup_parent: &meta.cgroup_parent,
        remove_mount_stubs_recursive: meta.remove_mount_stubs_recursive,
        valid_exit_codes: &meta.valid_exit_codes,
    }
}

fn secret_env_json(secret: &SecretEnv) -> SecretEnvJson<'_> {
    SecretEnvJson { id: &secret.id, name: &secret.name, optional: secret.optional }
}

fn device_json(device: &CdiDevice) -> DeviceJson<'_> {
    DeviceJson { name: &device.name, optional: device.optional }
}

fn mount_json(mount: &Mount) -> MountJson<'_> {
    MountJson {
        input: mount.input,
        dest: &mount.dest,
        output: mount.output,
        readonly: mount.readonly,
        mount_type: mount.mount_type as u8,
        tmpfs: mount.tmpfs_size.map(|size| TmpfsJson { size }),
        cache: mount.cache.as_ref().map(|cache| cache_json(cache, &mount.dest)),
        secret: mount.secret.as_ref().map(file_json),
        ssh: mount.ssh.as_ref().map(file_json),
        result_id: &mount.result_id,
        content_cache: mount.content_cache as u8,
    }
}

/// Only a shared cache with its default id, `dest` or `namespace/dest`, shows in the key.
fn cache_json<'a>(cache: &'a CacheOpt, dest: &str) -> CacheJson<'a> {
    let default = cache.id == dest || cache.id.split_once('/').is_some_and(|(_, rest)| rest == dest);
    let id = if cache.sharing == Sharing::Shared && default { cache.id.as_str() } else { "" };
    CacheJson { id, sharing: 0 }
}

fn file_json(file: &FileOpt) -> FileJson<'_> {
    FileJson { id: &file.id, uid: file.uid, gid: file.gid, mode: file.mode, optional: file.optional }
}
