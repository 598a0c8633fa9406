//! Blobs and documents at once, counted at the server.

use super::*;
use crate::support::gate::{Gate, Kind};

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_read_while_all_places_of_blobs_are_taken() {
    for limit in [4, 2, 7] {
        let gate = Gate::start(10, Kind::Blob, None);
        let client = Client::new(ClientOptions {
            blobs_at_once: limit,
            patience: Patience::default(),
            ..options(Account::Anonymous)
        });
        let client = client.expect("client");
        let name = reference(&gate.host, "a:1");
        let reads = gate.layers.iter().cloned().map(|layer| {
            let (client, name) = (Arc::clone(&client), name.clone());
            tokio::spawn(async move { fetch(&client, &name, &layer).await })
        });
        let reads: Vec<_> = reads.collect();
        let waiting = gate.clone();
        tokio::task::spawn_blocking(move || waiting.wait_for(Kind::Blob, limit)).await.expect("blobs");
        // All ten were asked for; what was not let through then would have come before these answers.
        client.manifest(&name).await.expect("a manifest beside the blobs");
        client.resolve(&name).await.expect("and another after it");
        assert_eq!((gate.most(Kind::Blob), gate.most_in_all()), (limit, limit + 1));
        gate.open();
        for read in reads {
            read.await.expect("task").expect("blob");
        }
        assert_eq!((gate.most(Kind::Blob), gate.most_in_all()), (limit, limit + 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_take_the_same_places() {
    let gate = Gate::start(0, Kind::Blob, Some(4));
    let client = client(Account::Anonymous);
    let pushes: Vec<_> = (0..10_u8)
        .map(|number| {
            let (client, target) = (Arc::clone(&client), reference(&gate.host, "a:1"));
            let content = Bytes::from(vec![number; 100_000]);
            tokio::spawn(async move {
                let descriptor = layer(&content);
                client.push_blob(&target, &descriptor, &*opener(&content), Whereabouts::Nowhere, silent()).await
            })
        })
        .collect();
    for push in pushes {
        push.await.expect("task").expect("pushed");
    }
    assert_eq!(gate.most(Kind::Blob), 4);
}
