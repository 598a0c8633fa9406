//! Content from one repository to another.
//!
//! In: two repositories and a descriptor. Out: nothing but that the second has it: linked where both are of one registry that
//! allows it, else streamed through this program, verified on the way, and never whole in memory.

use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio_util::io::StreamReader;

use super::blob::Turn;
use super::client::Client;
use super::error::RegistryError;
use super::push::{ByteReader, OnSent, Pushed, Whereabouts};
use crate::image::{Descriptor, Reference};

impl Client {
    /// Makes sure the repository of `to` has a blob of the repository of `from`.
    pub async fn copy_blob(
        self: &Arc<Self>,
        (from, to): (&Reference, &Reference),
        descriptor: &Descriptor,
        sent: OnSent,
    ) -> Result<Pushed, RegistryError> {
        let turn = if from.registry == to.registry { Turn::Shared } else { Turn::Own };
        let (client, source, wanted) = (Arc::clone(self), from.clone(), descriptor.clone());
        let open = move || open(Arc::clone(&client), source.clone(), wanted.clone(), turn);
        let known = [Reference { tag: None, digest: None, ..from.clone() }];
        loop {
            let whereabouts = Whereabouts::Repositories(&known);
            match self.push_blob(to, descriptor, &open, whereabouts, Arc::clone(&sent)).await {
                Err(error) if error.is_spoiled() => {}
                result => return result,
            }
        }
    }
}

fn open(
    client: Arc<Client>,
    from: Reference,
    blob: Descriptor,
    turn: Turn,
) -> BoxFuture<'static, io::Result<ByteReader>> {
    Box::pin(async move {
        let stream = client.blob_in_turn(&from, &blob, turn).await.map_err(io::Error::other)?;
        Ok(Box::pin(StreamReader::new(Box::pin(stream.into_stream()))) as ByteReader)
    })
}
