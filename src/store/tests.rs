use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;

use super::*;

fn store() -> (tempfile::TempDir, Arc<Store>) {
    let temp = tempfile::tempdir().expect("temp dir");
    let store = Store::open(&temp.path().join("state")).expect("open");
    (temp, store)
}

fn scratch_names(temp: &tempfile::TempDir) -> usize {
    std::fs::read_dir(temp.path().join("state/tmp")).expect("tmp").count() - 1
}

#[test]
fn blobs_come_back_by_digest() {
    let (_temp, store) = store();
    let mut writer = store.writer().expect("writer");
    writer.write_all(b"hello").expect("write");
    let digest = Digest::compute(b"hello");
    assert_eq!(writer.commit(Some((&digest, 5))).expect("commit"), (digest.clone(), 5));
    let (mut file, size) = store.blob(&digest).expect("blob").expect("there");
    let mut text = String::new();
    file.read_to_string(&mut text).expect("read");
    assert_eq!((text.as_str(), size), ("hello", 5));
    assert!(store.blob(&Digest::compute(b"other")).expect("blob").is_none());
}

#[test]
fn t8_wrong_content_is_not_stored() {
    let (_temp, store) = store();
    let digest = Digest::compute(b"hello");
    for (content, expected_size) in [("hellO", 5), ("hello", 6), ("", 5)] {
        let mut writer = store.writer().expect("writer");
        writer.write_all(content.as_bytes()).expect("write");
        let error = writer.commit(Some((&digest, expected_size))).expect_err(content);
        assert!(matches!(error, StoreError::Mismatch { .. }), "{error}");
        assert!(store.blob(&digest).expect("blob").is_none());
    }
    assert_eq!(store.scratch().dir().names().expect("names"), ["lock"]);
}

#[test]
fn m11_root_is_private() {
    let temp = tempfile::tempdir().expect("temp dir");
    let root = temp.path().join("state");
    std::fs::create_dir(&root).expect("mkdir");
    std::fs::set_permissions(&root, PermissionsExt::from_mode(0o777)).expect("chmod");
    Store::open(&root).expect("open");
    assert_eq!(std::fs::metadata(&root).expect("stat").permissions().mode() & 0o7777, 0o700);
}

#[test]
fn m11_prepared_roots_are_refused() {
    let temp = tempfile::tempdir().expect("temp dir");
    std::fs::create_dir(temp.path().join("real")).expect("mkdir");
    std::os::unix::fs::symlink("real", temp.path().join("link")).expect("symlink");
    assert!(matches!(Store::open(&temp.path().join("link")), Err(StoreError::Unsafe { .. })));
    let open = temp.path().join("open");
    std::fs::create_dir(&open).expect("mkdir");
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).expect("chmod");
    assert!(matches!(Store::open(&open.join("state")), Err(StoreError::Unsafe { .. })));
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o1777)).expect("chmod");
    Store::open(&open.join("state")).expect("sticky parents are fine");
    let foreign = temp.path().join("foreign");
    std::fs::create_dir(&foreign).expect("mkdir");
    std::os::unix::fs::chown(&foreign, Some(12345), None).expect("chown");
    assert!(matches!(Store::open(&foreign), Err(StoreError::Unsafe { .. })));
}

#[test]
fn scratch_of_the_dead_is_swept_and_that_of_the_living_kept() {
    let (temp, store) = store();
    std::fs::create_dir_all(temp.path().join("state/tmp/77/deep")).expect("mkdir");
    let second = Store::open(&temp.path().join("state")).expect("open");
    assert_eq!(scratch_names(&temp), 2);
    drop(second);
    assert_eq!(scratch_names(&temp), 1);
    store.writer().expect("the first one still works").commit(None).expect("commit");
}

#[test]
fn a_blob_can_be_read_while_it_is_written() {
    let (_temp, store) = store();
    let content: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    let mut writer = store.writer().expect("writer");
    let follower = writer.follow().expect("follow");
    let readers: Vec<_> = (0..2).map(|_| (follower.clone(), follower.reader())).collect();
    let threads = readers.into_iter().map(|(follower, mut reader)| {
        std::thread::spawn(move || {
            let mut read = Vec::new();
            reader.read_to_end(&mut read).expect("read");
            (read, follower.stored())
        })
    });
    let threads: Vec<_> = threads.collect();
    content.chunks(7_001).for_each(|chunk| writer.write_all(chunk).expect("write"));
    assert!(follower.grows_beyond(1_000_000));
    let stored = writer.commit(None).expect("commit");
    assert!(!follower.grows_beyond(1_000_000), "it grows no more");
    for thread in threads {
        assert!(thread.join().expect("reader") == (content.clone(), Some(stored.clone())));
    }
    let mut late = Vec::new();
    follower.reader().read_to_end(&mut late).expect("read");
    assert!(late == content);
}

#[test]
fn a_blob_that_is_given_up_is_an_error_to_who_reads_it() {
    let (_temp, store) = store();
    let mut writer = store.writer().expect("writer");
    let follower = writer.follow().expect("follow");
    writer.write_all(b"half").expect("write");
    let mut reader = follower.reader();
    let mut half = [0; 4];
    reader.read_exact(&mut half).expect("read");
    let waiting = std::thread::spawn(move || reader.read(&mut [0; 4]).expect_err("given up"));
    drop(writer);
    waiting.join().expect("reader");
    assert_eq!((follower.stored(), follower.grows_beyond(0)), (None, false));
}
