//! Images made by hand: layers from raw tar headers, which no library would write, in an OCI layout.

use std::fs;
use std::path::Path;

use rbuild::digest::Digest;
use serde_json::{Value, json};

use super::build::Project;

/// Kinds of members, as the header has them.
pub(crate) const FILE: u8 = b'0';
pub(crate) const HARD: u8 = b'1';
pub(crate) const LINK: u8 = b'2';
pub(crate) const CHAR: u8 = b'3';
pub(crate) const BLOCK: u8 = b'4';
pub(crate) const DIR: u8 = b'5';
pub(crate) const FIFO: u8 = b'6';
/// A PAX record block for the next member.
pub(crate) const PAX: u8 = b'x';

/// A member of an archive.
#[derive(Debug, Clone)]
pub(crate) struct Member<'a> {
    pub(crate) kind: u8,
    pub(crate) name: &'a [u8],
    pub(crate) link: &'a [u8],
    pub(crate) mode: u32,
    pub(crate) owner: u32,
    pub(crate) device: (u32, u32),
    pub(crate) data: &'a [u8],
    /// Where the size in the header differs from that of the data.
    pub(crate) size: Option<u64>,
}

impl<'a> Member<'a> {
    /// One of root's with nothing in it.
    pub(crate) fn new(kind: u8, name: &'a [u8]) -> Self {
        let mode = if kind == DIR { 0o755 } else { 0o644 };
        Self { kind, name, link: b"", mode, owner: 0, device: (0, 0), data: b"", size: None }
    }
}

/// An archive.
#[derive(Debug, Clone, Default)]
pub(crate) struct RawTar(pub(crate) Vec<u8>);

impl RawTar {
    /// Adds a member.
    pub(crate) fn member(mut self, member: &Member<'_>) -> Self {
        self.0.extend(header(member));
        self.0.extend(member.data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// Adds a file with a mode.
    pub(crate) fn file(self, name: &str, mode: u32, data: impl AsRef<[u8]>) -> Self {
        self.member(&Member { mode, data: data.as_ref(), ..Member::new(FILE, name.as_bytes()) })
    }

    /// Adds a directory.
    pub(crate) fn dir(self, name: &str) -> Self {
        self.member(&Member::new(DIR, name.as_bytes()))
    }

    /// Adds a symbolic link.
    pub(crate) fn link(self, name: &str, to: &str) -> Self {
        self.member(&Member { link: to.as_bytes(), ..Member::new(LINK, name.as_bytes()) })
    }

    /// Adds a hard link.
    pub(crate) fn hard(self, name: &str, to: &str) -> Self {
        self.member(&Member { link: to.as_bytes(), ..Member::new(HARD, name.as_bytes()) })
    }

    /// Returns the archive with its end.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// A header of 512 bytes: ustar, with its checksum.
fn header(member: &Member<'_>) -> Vec<u8> {
    let mut header = vec![0u8; 512];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, &member.name[..member.name.len().min(100)]);
    put(100, format!("{:07o}", member.mode).as_bytes());
    put(108, format!("{:07o}", member.owner).as_bytes());
    put(116, format!("{:07o}", member.owner).as_bytes());
    put(124, format!("{:011o}", member.size.unwrap_or(member.data.len() as u64)).as_bytes());
    put(136, b"14524566400");
    put(148, b"        ");
    put(156, &[member.kind]);
    put(157, &member.link[..member.link.len().min(100)]);
    put(257, b"ustar\x0000");
    put(329, format!("{:07o}", member.device.0).as_bytes());
    put(337, format!("{:07o}", member.device.1).as_bytes());
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

const APPLETS: [&str; 34] = [
    "sh", "ls", "cat", "echo", "true", "id", "env", "grep", "stat", "find", "touch", "rm", "mkdir", "ln", "sleep",
    "setsid", "head", "yes", "dd", "tr", "wc", "mknod", "mkfifo", "truncate", "readlink", "seq", "mv", "sort", "chmod",
    "mount", "umount", "kill", "date", "test",
];

/// Busybox and its names: what a step needs.
pub(crate) fn tools() -> RawTar {
    let busybox = fs::read("/bin/busybox").unwrap();
    let tar = RawTar::default().dir("bin").file("bin/busybox", 0o755, busybox);
    APPLETS.iter().fold(tar, |tar, name| tar.link(&format!("bin/{name}"), "busybox")).dir("tmp").dir("etc")
}

/// An image in the project's directory; becomes an argument of rbuild.
#[derive(Debug, Default)]
pub(crate) struct Image {
    layers: Vec<(Vec<u8>, Vec<u8>, &'static str)>,
    config: Value,
}

impl Image {
    /// One with plain layers.
    pub(crate) fn of(layers: impl IntoIterator<Item = RawTar>) -> Self {
        let layers = layers.into_iter().map(RawTar::end).map(|tar| (tar.clone(), tar, "")).collect();
        Self { layers, config: json!({ "Env": ["PATH=/bin"] }) }
    }

    /// Adds a layer as it is: the archive it claims to be, and its blob with the media type's suffix.
    pub(crate) fn blob(mut self, tar: Vec<u8>, blob: Vec<u8>, suffix: &'static str) -> Self {
        self.layers.push((tar, blob, suffix));
        self
    }

    /// Sets a field of the image's configuration.
    pub(crate) fn with(mut self, field: &str, value: Value) -> Self {
        self.config[field] = value;
        self
    }

    /// Writes the image below the project and returns the arguments that make it the stage `name`.
    pub(crate) fn named(&self, project: &Project, name: &str) -> [String; 2] {
        let dir = project.home().join(format!("layout-{name}"));
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        let diff_ids: Vec<String> = self.layers.iter().map(|(tar, ..)| Digest::compute(tar).to_string()).collect();
        let config = json!({
            "os": "linux", "architecture": architecture(), "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids }, "history": [],
        });
        let layer = |(_, blob, suffix): &(Vec<u8>, Vec<u8>, &str)| {
            put(&dir, &format!("application/vnd.oci.image.layer.v1.tar{suffix}"), blob)
        };
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": put(&dir, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes()),
            "layers": self.layers.iter().map(layer).collect::<Vec<_>>(),
        });
        let manifest = put(&dir, "application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
        fs::write(dir.join("index.json"), json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string()).unwrap();
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        project.own(&dir);
        ["--build-context".to_owned(), format!("{name}=oci-layout://{}", dir.display())]
    }
}

fn put(dir: &Path, media_type: &str, content: &[u8]) -> Value {
    let digest = Digest::compute(content);
    let hex = digest.as_str().split_once(':').unwrap().1;
    fs::write(dir.join("blobs/sha256").join(hex), content).unwrap();
    json!({ "mediaType": media_type, "digest": digest.as_str(), "size": content.len() })
}

fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}
