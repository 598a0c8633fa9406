//! rbuild, as stations in the order data meets them:
//!
//! ```text
//! request ─▶ frontend ─▶ LLB ─▶ solver ─▶ worker (source · exec · file) ─▶ result ─▶ exporters
//! (cli,      (Dockerfile  (ops,   (keys,      snapshots, mounts, network          (image · oci · docker · local · tar)
//!  config)    to LLB)      bytes,  edges,
//!                          digests) scheduler)
//! ```
//!
//! A good place to start is [`driver::build`]: it calls every station once, in this order. [`solver`] says how it is decided what
//! runs, [`exec`] what a step may do, [`snapshot`] what a layer is on disk.
//!
//! What is left on disk, below the state root, and who owns it:
//!
//! | path | owner | what |
//! | --- | --- | --- |
//! | `lock`, `tmp/` | [`store`] | who uses the root, and what each process is working on |
//! | `usage.log`, `usage.lock` | [`store::usage`] | when and how often what was used |
//! | `blobs/` | [`store`] | layers, manifests and configs by digest, as they travel |
//! | `records/` | [`store::records`] | cache keys and the layers they lead to |
//! | `snapshots/`, `chains/` | [`snapshot`] | layers unpacked, in overlay's format, and their chain ids |
//! | `caches/` | [`ops::CacheMounts`] | directories of `RUN --mount=type=cache` |
//! | `network/` | [`cni`] | which networks are to be taken down again, should their build not live to do it |
//! | `explain/` | [`store::explain`] | what the last builds were made of, so that it can be said why a step ran |
//! | `git/`, `http/` | [`source::git`], [`source::http`] | what was fetched of git repositories; entity tags of web servers |
//!
//! Caches that builds share lie outside it, in directories and registries that the user names: [`remotecache`].
//!
//! Nothing is mounted where another process could see it, and nothing is written elsewhere but by [`export`] and where the user
//! said.
//!
//! Imports go to a lower level only; `integration/layers.rs` checks it.

// Level 0: vocabulary and pure conversions.
pub mod diag;
pub mod digest;
pub mod dockerfile;
pub mod image;
pub mod llb;
pub mod pattern;
pub mod progress;

// Level 1: the solver, what is said of its decisions, and the kernel.
pub mod explain;
pub mod solver;
pub mod sys;

// Level 2: what is kept, and what is talked to.
pub mod cdi;
pub mod checksum;
pub mod cni;
pub mod layer;
pub mod registry;
pub mod secrets;
pub mod snapshot;
pub mod store;

// Level 3: where content comes from, how a process runs, and caches that lie elsewhere.
pub mod exec;
pub mod remotecache;
pub mod source;

// Level 4: ops and frontend.
pub mod frontend;
pub mod ops;

// Level 5: where results go.
pub mod export;

// Level 6 and 7: one build, and the program around it.
pub mod cli;
pub mod config;
pub mod driver;
pub mod rootless;
