//! What lies at a [`Location`], read and written the same way wherever it is.
//!
//! In: locations, descriptors. Out: documents, blobs. Invariant: all that is read is verified before it counts, and what is written
//! to a directory has its name only once it is whole.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt as _};
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::Fetched;
use super::location::{LATEST, LayoutName, Location};
use crate::diag::{Diagnose, Diagnostic, Kind};
use crate::export::layout::LayoutWriter;
use crate::image::{Descriptor, Reference};
use crate::registry::{ByteReader, Client, OnSent, RegistryError, Whereabouts, document};
use crate::source::{OciLayout, SourceError};

fn told<E: Diagnose>(error: E) -> Diagnostic {
    Diagnostic::from_error(&error)
}

fn opened(name: &LayoutName) -> Result<OciLayout, SourceError> {
    OciLayout::open(&name.path)
}

/// Gets what a location leads to.
pub(super) async fn fetch(client: &Arc<Client>, location: &Location) -> Result<Fetched, Diagnostic> {
    let (descriptor, bytes) = match location {
        Location::Registry(name) => client.manifest(name).await.map_err(told)?,
        Location::Layout(name) => {
            let layout = opened(name).map_err(told)?;
            layout.manifest(name.tag.as_deref(), name.digest.as_ref()).map_err(told)?
        }
    };
    let parsed = document::parse(&bytes, Some(&descriptor.media_type));
    let (_, document) = parsed.map_err(|error| Diagnostic::new(Kind::Remote, format!("{location}: {error}")))?;
    Ok(Fetched { entry: descriptor.into(), bytes: bytes.to_vec(), document })
}

/// Gets a small blob beside a location.
pub(super) async fn small(
    client: &Arc<Client>,
    location: &Location,
    descriptor: &Descriptor,
    limit: u64,
) -> Result<Bytes, Diagnostic> {
    match location {
        Location::Registry(name) => client.small_blob(name, descriptor, limit).await.map_err(told),
        Location::Layout(name) => opened(name).and_then(|layout| layout.small(descriptor, limit)).map_err(told),
    }
}

/// Copies a blob from beside one location to beside another.
pub(super) async fn copy_blob(
    client: &Arc<Client>,
    (from, to): (&Location, &Location),
    blob: &Descriptor,
    sent: OnSent,
) -> Result<(), Diagnostic> {
    match (from, to) {
        (Location::Registry(from), Location::Registry(to)) => {
            client.copy_blob((from, to), blob, sent).await.map(drop).map_err(told)
        }
        (Location::Layout(from), Location::Registry(to)) => push(client, from, to, blob, sent).await,
        (from, Location::Layout(to)) => loop {
            match put(client, from, to, blob).await {
                Err(error) if RegistryError::is_spoiled_in(&error) => {}
                result => return result.map_err(told),
            }
        },
    }
}

async fn push(
    client: &Arc<Client>,
    from: &LayoutName,
    to: &Reference,
    blob: &Descriptor,
    sent: OnSent,
) -> Result<(), Diagnostic> {
    let layout = Arc::new(opened(from).map_err(told)?);
    let wanted = blob.clone();
    let open = move || -> BoxFuture<'static, io::Result<ByteReader>> {
        let stream = layout.blob_of(&wanted).map(reader).map_err(io::Error::other);
        Box::pin(async move { stream })
    };
    client.push_blob(to, blob, &open, Whereabouts::Repositories(&[]), sent).await.map(drop).map_err(told)
}

/// Chunks as a reader.
fn reader(chunks: BoxStream<'static, Result<Bytes, SourceError>>) -> ByteReader {
    Box::pin(StreamReader::new(chunks.map(|chunk| chunk.map_err(io::Error::other))))
}

async fn put(
    client: &Arc<Client>,
    from: &Location,
    to: &LayoutName,
    blob: &Descriptor,
) -> Result<(), crate::export::ExportError> {
    let failed = crate::export::ExportError::blob(&blob.digest);
    let writer = LayoutWriter::open(&to.path)?;
    if writer.has(blob)? {
        return Ok(());
    }
    let content: ByteReader = match from {
        Location::Registry(name) => {
            let stream = client.blob(name, blob).await.map_err(|error| failed(io::Error::other(error)))?;
            Box::pin(StreamReader::new(Box::pin(stream.into_stream())))
        }
        Location::Layout(name) => {
            let stream = opened(name).and_then(|layout| layout.blob_of(blob));
            reader(stream.map_err(|error| failed(io::Error::other(error)))?)
        }
    };
    let (content, wanted) = (SyncIoBridge::new(content), blob.clone());
    let written = tokio::task::spawn_blocking(move || writer.put(&wanted, content)).await;
    written.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// Stores a manifest or index beside a location, before or without its name.
pub(super) async fn put_document(
    client: &Arc<Client>,
    to: &Location,
    (media_type, bytes): (&str, &Bytes),
) -> Result<(), Diagnostic> {
    match to {
        Location::Registry(name) => {
            let place = Reference { tag: None, digest: None, ..name.clone() };
            client.push_manifest(&place, media_type, bytes).await.map(drop).map_err(told)
        }
        Location::Layout(name) => {
            LayoutWriter::open(&name.path).and_then(|writer| writer.put_document(bytes)).map_err(told)
        }
    }
}

/// Stores a manifest or index at a location.
pub(super) async fn name(
    client: &Arc<Client>,
    to: &Location,
    (entry, bytes): (&Descriptor, &Bytes),
) -> Result<(), Diagnostic> {
    match to {
        Location::Registry(name) => client.push_manifest(name, &entry.media_type, bytes).await.map(drop).map_err(told),
        Location::Layout(name) => {
            let tag = name.tag.as_deref().or(name.digest.is_none().then_some(LATEST));
            let writer = LayoutWriter::open(&name.path).map_err(told)?;
            writer.put_document(bytes).and_then(|()| writer.name(entry, tag)).map_err(told)
        }
    }
}
