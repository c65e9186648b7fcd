//! How a trace lies in Parquet: column names and types, and the encodings that measurement chose (traces/FORMAT.md).

use crate::TraceError;
use crate::header::Header;
use arrow_schema::{DataType, Field, Schema};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use std::path::Path;
use std::sync::Arc;

/// Metadata key of the header.
pub(crate) const HEADER_KEY: &str = "kvtier.header";
/// Metadata key of the requests table.
pub(crate) const REQUESTS_KEY: &str = "kvtier.requests";

/// Block ids per row group when writing, and per chunk when reading.
pub const IDS_PER_CHUNK: usize = 256 * 1024;

/// The key columns with their types, in order.
const KEYS: [(&str, DataType); 5] = [
    ("request", DataType::UInt32),
    ("step", DataType::UInt32),
    ("layer", DataType::UInt16),
    ("head_group", DataType::UInt16),
    ("query", DataType::UInt16),
];

/// How the values of a list column are encoded before compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Values as they are.
    Plain,
    /// A dictionary per row group and bit-packed indices.
    Dictionary,
    /// Bit-packed differences; for ids alone.
    Delta,
    /// The bytes of the values apart: all first bytes, then all second bytes.
    ByteStreamSplit,
}

/// The choices a writer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Encoding of block ids, extra ranks included.
    pub ids: Coding,
    /// Encoding of scores.
    pub scores: Coding,
    /// zstd level, 1 to 22; none leaves pages uncompressed.
    pub zstd: Option<i32>,
    /// Block ids, extra ranks included, per row group.
    pub ids_per_row_group: usize,
}

impl Default for Layout {
    fn default() -> Layout {
        Layout {
            ids: Coding::ByteStreamSplit,
            scores: Coding::ByteStreamSplit,
            zstd: Some(1),
            ids_per_row_group: IDS_PER_CHUNK,
        }
    }
}

/// The columns of a trace with this header.
pub(crate) fn schema(header: &Header) -> Schema {
    let list =
        |name, item| Field::new(name, DataType::List(Arc::new(Field::new("element", item, false))), false);
    let mut fields: Vec<Field> =
        KEYS.iter().map(|(name, kind)| Field::new(*name, kind.clone(), false)).collect();
    fields.push(list("blocks", DataType::UInt32));
    if header.score.is_some() {
        fields.push(list("scores", DataType::Float16));
    }
    if header.extra > 0 {
        fields.push(list("extra", DataType::UInt32));
    }
    Schema::new(fields)
}

/// Checks a file's columns against its header.
pub(crate) fn check_schema(found: &Schema, header: &Header, path: &Path) -> Result<(), TraceError> {
    const NAMES: [&str; 8] = ["request", "step", "layer", "head_group", "query", "blocks", "scores", "extra"];
    for field in found.fields() {
        if !NAMES.contains(&field.name().as_str()) {
            let problem = format!("unknown; the columns are {}", NAMES.join(", "));
            return Err(TraceError::column(path, field.name(), problem));
        }
    }
    let wanted = schema(header);
    for name in NAMES {
        match (wanted.field_with_name(name).ok(), found.field_with_name(name).ok()) {
            (Some(wanted), Some(found)) if same_type(wanted.data_type(), found.data_type()) => {}
            (None, None) => {}
            (Some(wanted), Some(found)) => {
                let (found, wanted) = (show(found.data_type()), show(wanted.data_type()));
                return Err(TraceError::column(path, name, format!("is {found}, must be {wanted}")));
            }
            (Some(wanted), None) => {
                let problem = match name {
                    "scores" => "missing, though kvtier.header says what scores mean".into(),
                    "extra" => "missing, though kvtier.header has extra > 0".into(),
                    _ => format!("missing; add it as {}", show(wanted.data_type())),
                };
                return Err(TraceError::column(path, name, problem));
            }
            (None, Some(_)) => {
                let problem = match name {
                    "scores" => "present, but kvtier.header does not say in `score` what scores mean",
                    _ => {
                        "present, but kvtier.header has extra = 0; set it to the largest number of extra ranks"
                    }
                };
                return Err(TraceError::column(path, name, problem));
            }
        }
    }
    Ok(())
}

fn same_type(wanted: &DataType, found: &DataType) -> bool {
    match (wanted, found) {
        (DataType::List(wanted), DataType::List(found)) => wanted.data_type() == found.data_type(),
        _ => wanted == found,
    }
}

fn show(kind: &DataType) -> String {
    match kind {
        DataType::List(item) => format!("List<{}>", item.data_type()),
        other => other.to_string(),
    }
}

/// Parquet writer settings for a layout.
pub(crate) fn properties(layout: &Layout) -> Result<WriterProperties, ParquetError> {
    let compression = match layout.zstd {
        Some(level) => Compression::ZSTD(ZstdLevel::try_new(level)?),
        None => Compression::UNCOMPRESSED,
    };
    let mut builder = WriterProperties::builder()
        .set_created_by(concat!("kvtier-traces ", env!("CARGO_PKG_VERSION")).into())
        .set_compression(compression)
        .set_max_row_group_row_count(None)
        .set_dictionary_enabled(true)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true);
    for key in ["request", "step"] {
        builder = builder.set_column_statistics_enabled(ColumnPath::from(key), EnabledStatistics::Chunk);
    }
    for (column, coding) in [("blocks", layout.ids), ("extra", layout.ids), ("scores", layout.scores)] {
        builder = set_coding(builder, column, coding);
    }
    Ok(builder.build())
}

fn set_coding(builder: WriterPropertiesBuilder, column: &str, coding: Coding) -> WriterPropertiesBuilder {
    let path = ColumnPath::from(vec![column.to_owned(), "list".to_owned(), "element".to_owned()]);
    let encoding = match coding {
        Coding::Dictionary => return builder.set_column_dictionary_enabled(path, true),
        Coding::Plain => Encoding::PLAIN,
        Coding::Delta => Encoding::DELTA_BINARY_PACKED,
        Coding::ByteStreamSplit => Encoding::BYTE_STREAM_SPLIT,
    };
    builder.set_column_dictionary_enabled(path.clone(), false).set_column_encoding(path, encoding)
}
