//! The registry that the builds' base images come from.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rbuild::digest::Digest;
use rbuild::image::{Descriptor, Reference};
use rbuild::registry::{ByteReader, Client, ClientOptions, HostOptions, NoCredentials, Whereabouts};
use serde_json::Value;

use crate::layout::{Layout, assemble, json};
use crate::support::registry::Registry;

/// A real registry that holds the images of `base/`, and the configuration file that makes it Docker Hub's mirror.
pub(crate) struct BaseRegistry {
    registry: Registry,
    runtime: tokio::runtime::Runtime,
    client: Arc<Client>,
}

impl BaseRegistry {
    /// Starts it with the base images of a folder of cases.
    pub(crate) fn start(folder: &Path) -> Self {
        let registry = Registry::start();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let mut options = ClientOptions::new(Arc::new(NoCredentials));
        options.hosts.insert(registry.host.clone(), HostOptions { http: Some(true), ..HostOptions::default() });
        let client = Client::new(options).unwrap();
        let started = Self { registry, runtime, client };
        let base = tempfile::tempdir().unwrap();
        assemble(folder, &folder.join("base"), base.path());
        for entry in json(&base.path().join("index.json"))["manifests"].as_array().unwrap() {
            let name = entry["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap();
            started.push(base.path(), entry, name.trim_start_matches("docker.io/"));
        }
        started
    }

    /// Pushes an image of a layout under a name and returns it with the registry's host.
    pub(crate) fn push(&self, layout: &Path, entry: &Value, name: &str) -> String {
        let target = format!("{}/{name}", self.registry.host);
        let reference: Reference = target.parse().unwrap();
        let layout = Layout(layout.to_owned());
        let bytes = layout.blob(entry["digest"].as_str().unwrap());
        let document: Value = serde_json::from_slice(&bytes).unwrap();
        for child in document["manifests"].as_array().into_iter().flatten() {
            self.put(&layout, child["digest"].as_str().unwrap(), &Reference { tag: None, ..reference.clone() });
        }
        self.put(&layout, entry["digest"].as_str().unwrap(), &reference);
        target
    }

    fn put(&self, layout: &Layout, manifest: &str, reference: &Reference) {
        let bytes = layout.blob(manifest);
        let document: Value = serde_json::from_slice(&bytes).unwrap();
        let blobs = document["layers"].as_array().into_iter().flatten().chain(document.get("config"));
        self.runtime.block_on(async {
            for blob in blobs {
                let content = Bytes::from(layout.blob(blob["digest"].as_str().unwrap()));
                let digest: Digest = blob["digest"].as_str().unwrap().parse().unwrap();
                let descriptor = Descriptor::new("", digest, content.len() as u64);
                let open = move || -> futures_util::future::BoxFuture<'static, io::Result<ByteReader>> {
                    let content = content.clone();
                    Box::pin(async move { Ok(Box::pin(io::Cursor::new(content)) as ByteReader) })
                };
                self.client
                    .push_blob(reference, &descriptor, &open, Whereabouts::Repositories(&[]), Arc::new(|_| ()))
                    .await
                    .unwrap();
            }
            let kind = document["mediaType"].as_str().unwrap();
            self.client.push_manifest(reference, kind, &Bytes::from(bytes)).await.unwrap();
        });
    }

    /// The text of the configuration file.
    pub(crate) fn config(&self) -> String {
        let host = &self.registry.host;
        format!("[registry.\"docker.io\"]\nmirrors = [\"{host}\"]\n[registry.\"{host}\"]\nhttp = true\n")
    }
}
