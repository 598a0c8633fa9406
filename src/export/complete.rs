//! Completes an image configuration with its layers and times, and encodes it.
//!
//! In: the configuration as the frontend made it, the layers, an epoch. Out: the bytes to be stored and pushed. Every time
//! comes from the layers, the base image or the epoch, never from a clock. Encoding is BuildKit's: Go's JSON with the
//! top-level members in alphabetical order.

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use base64::Engine as _;

use super::{ExportError, ExportLayer, ImageResult};
use crate::digest::DiffId;
use crate::image::{ContainerConfig, History, ImageConfig, canonical};

/// Comment of history entries made here.
const COMMENT: &str = "buildkit.exporter.image.v0";
/// History of a layer that nobody described.
const NO_DESCRIPTION: &str = "created by buildkit";

/// The members in the order in which they are written.
#[derive(Serialize)]
struct Sorted<'a> {
    architecture: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    author: &'a str,
    config: &'a ContainerConfig,
    created: Option<String>,
    history: Option<Vec<History>>,
    #[serde(rename = "moby.buildkit.cache.v0", skip_serializing_if = "Option::is_none")]
    inline_cache: Option<String>,
    os: &'a str,
    #[serde(rename = "os.features", skip_serializing_if = "<[_]>::is_empty")]
    os_features: &'a [String],
    #[serde(rename = "os.version", skip_serializing_if = "str::is_empty")]
    os_version: &'a str,
    rootfs: RootFs,
    #[serde(skip_serializing_if = "str::is_empty")]
    variant: &'a str,
}

#[derive(Serialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: &'static str,
    /// `null` without layers, as Go writes it.
    diff_ids: Option<Vec<DiffId>>,
}

/// Returns the encoded configuration; `epoch` clamps the times of all that is not the base image's.
pub(super) fn complete(result: &ImageResult, epoch: Option<i64>) -> Result<Vec<u8>, ExportError> {
    let config = &result.config;
    for (name, value) in [("os", &config.os), ("architecture", &config.architecture)] {
        if value.is_empty() {
            return Err(ExportError::Config { problem: format!("missing {name}") });
        }
    }
    let mut history = history(config.history.clone(), &result.layers)?;
    let epoch = epoch.map(epoch_time).transpose()?;
    if let Some(epoch) = epoch {
        clamp_history(&mut history, result.base_config.as_ref(), epoch)?;
    }
    let created = match config.created.as_deref() {
        Some(created) => Some(clamped(Some(created), epoch)?),
        None => history.iter().rev().find_map(|entry| entry.created.clone()),
    };
    let diff_ids: Vec<DiffId> = result.layers.iter().map(|layer| layer.diff_id.clone()).collect();
    let sorted = Sorted {
        architecture: &config.architecture,
        author: &config.author,
        config: &config.config,
        created,
        history: (!history.is_empty()).then_some(history),
        inline_cache: result.inline_cache.as_ref().map(|data| base64::engine::general_purpose::STANDARD.encode(data)),
        os: &config.os,
        os_features: &config.os_features,
        os_version: &config.os_version,
        rootfs: RootFs { kind: "layers", diff_ids: (!diff_ids.is_empty()).then_some(diff_ids) },
        variant: &config.variant,
    };
    Ok(canonical::to_vec(&sorted))
}

/// Brings history and layers into line and fills in all times.
fn history(mut history: Vec<History>, layers: &[ExportLayer]) -> Result<Vec<History>, ExportError> {
    for entry in &mut history {
        entry.created = entry.created.as_deref().map(normal).transpose()?;
    }
    let mut described = 0;
    for entry in history.iter_mut().filter(|entry| !entry.empty_layer) {
        // A history that claims more layers than there are is believed from the bottom only.
        entry.empty_layer = described == layers.len();
        described += usize::from(!entry.empty_layer);
    }
    history.extend(layers[described..].iter().map(synthesised));
    let mut left = layers.iter();
    for entry in history.iter_mut().filter(|entry| !entry.empty_layer) {
        let layer = left.next();
        if entry.created.is_none() {
            entry.created = layer.and_then(|layer| layer.created.as_deref()).map(normal).transpose()?;
        }
    }
    fill_times(&mut history);
    Ok(history)
}

fn synthesised(layer: &ExportLayer) -> History {
    let description = if layer.description.is_empty() { NO_DESCRIPTION } else { &layer.description };
    History { created_by: description.into(), comment: COMMENT.into(), ..History::default() }
}

/// Entries that made no layer take the time of the layer before them; the first ones that of the first new layer, so that
/// they do not look as old as the base image.
fn fill_times(history: &mut [History]) {
    let gap = history.iter().position(|entry| entry.created.is_none()).unwrap_or(history.len());
    let first_new = history[gap..].iter().find_map(|entry| entry.created.clone());
    let mut time = first_new.or_else(|| history[..gap].iter().rev().find_map(|entry| entry.created.clone()));
    for entry in &mut history[gap..] {
        match &entry.created {
            Some(created) => time = Some(created.clone()),
            None => entry.created.clone_from(&time),
        }
    }
}

/// Entries the base image has keep their times, up to the first that differs.
fn clamp_history(
    history: &mut [History],
    base: Option<&ImageConfig>,
    epoch: OffsetDateTime,
) -> Result<(), ExportError> {
    let same = |entry: &History, other: &History| {
        let time = |h: &History| h.created.as_deref().map(|text| parse(text).ok());
        time(entry) == time(other)
            && History { created: None, ..entry.clone() } == History { created: None, ..other.clone() }
    };
    let inherited = base.map_or(&[][..], |base| &base.history);
    let kept = history.iter().zip(inherited).take_while(|(entry, other)| same(entry, other)).count();
    for entry in &mut history[kept..] {
        entry.created = Some(clamped(entry.created.as_deref(), Some(epoch))?);
    }
    Ok(())
}

/// The earlier of a time and the epoch; the epoch where there is no time.
fn clamped(text: Option<&str>, epoch: Option<OffsetDateTime>) -> Result<String, ExportError> {
    match (text.map(parse).transpose()?, epoch) {
        (Some(time), Some(epoch)) => format(time.min(epoch)),
        (Some(time), None) => format(time),
        (None, epoch) => format(epoch.unwrap_or(OffsetDateTime::UNIX_EPOCH)),
    }
}

fn epoch_time(seconds: i64) -> Result<OffsetDateTime, ExportError> {
    OffsetDateTime::from_unix_timestamp(seconds)
        .map_err(|_| ExportError::options(format!("SOURCE_DATE_EPOCH {seconds} is no time")))
}

/// Go reads and writes every time, and so drops zeros at the end of fractions.
fn normal(text: &str) -> Result<String, ExportError> {
    format(parse(text)?)
}

/// Returns the latest of several times; what is none is left out.
pub(super) fn latest(times: impl Iterator<Item = String>) -> Option<String> {
    times.filter_map(|text| parse(&text).ok().map(|time| (time, text))).max().map(|(_, text)| text)
}

fn parse(text: &str) -> Result<OffsetDateTime, ExportError> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| ExportError::Config { problem: format!("{text:?} is not a time of RFC 3339") })
}

fn format(time: OffsetDateTime) -> Result<String, ExportError> {
    time.format(&Rfc3339).map_err(|_| ExportError::Config { problem: format!("{time} has no form in RFC 3339") })
}
