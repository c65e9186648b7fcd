//! Points as tables: one flat row per point, the same columns in Parquet and CSV, and Parquet back into points.
//!
//! Columns are the fields of `Point` joined by dots (`config.policy`, `steady.misses`), integers as 64-bit signed;
//! per-layer figures are list columns in Parquet and space-separated in CSV. Two derived columns stand first.

use crate::error::SimError;
use crate::record::Point;
use arrow_array::builder::{Int64Builder, ListBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Float64Array, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// A cell of a row.
#[derive(Clone, Debug, PartialEq)]
enum Cell {
    Text(String),
    Integer(i64),
    Integers(Vec<i64>),
    Absent,
}

/// A column computed from the others: its name and how.
type Derived = (&'static str, fn(&Point) -> f64);

/// Derived columns, for readers of the table; ignored when points are read back.
const DERIVED: [Derived; 2] =
    [("tokens_per_s", |point| point.time.tokens_per_s()), ("miss_ratio", |point| point.steady.miss_ratio())];

/// Writes `bytes` to a temporary name beside `path`, then renames it.
///
/// # Errors
/// If the folder cannot be written.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), SimError> {
    let partial = path.with_extension(format!(
        "{}.partial",
        path.extension().map(|extension| extension.to_string_lossy()).unwrap_or_default()
    ));
    let written =
        File::create(&partial).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    // By the name that was asked for: of the other one nobody knows.
    written.map_err(|source| SimError::io(path, "write", source))?;
    std::fs::rename(&partial, path).map_err(|source| SimError::io(path, "rename to", source))
}

/// Writes points as Parquet: the same bytes for the same points.
///
/// # Errors
/// If the folder cannot be written.
pub fn write_parquet(path: &Path, points: &[Point]) -> Result<(), SimError> {
    let (names, rows) = rows(points);
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    for (name, of) in DERIVED {
        columns.push((name.into(), Arc::new(points.iter().map(of).collect::<Float64Array>())));
    }
    for (at, name) in names.iter().enumerate() {
        columns.push((name.clone(), column(rows.iter().map(|row| &row[at]))));
    }
    let broken =
        |error: &dyn std::fmt::Display| SimError::io(path, "write", std::io::Error::other(error.to_string()));
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    );
    let batch = batch.map_err(|error| broken(&error))?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(Default::default()))
        .set_created_by("kvtier".into())
        .build();
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).map_err(|error| broken(&error))?;
    writer.write(&batch).map_err(|error| broken(&error))?;
    writer.close().map_err(|error| broken(&error))?;
    write_file(path, &bytes)
}

/// Writes points as CSV.
///
/// # Errors
/// If the folder cannot be written.
pub fn write_csv(path: &Path, points: &[Point]) -> Result<(), SimError> {
    let (names, rows) = rows(points);
    let broken = |error: csv::Error| SimError::io(path, "write", std::io::Error::other(error.to_string()));
    let mut writer = csv::Writer::from_writer(Vec::new());
    let derived = DERIVED.iter().map(|(name, _)| (*name).to_owned());
    writer.write_record(derived.chain(names)).map_err(broken)?;
    for (point, row) in points.iter().zip(rows) {
        let derived = DERIVED.iter().map(|(_, of)| format!("{:.6}", of(point)));
        let cells = row.into_iter().map(|cell| match cell {
            Cell::Text(text) => text,
            Cell::Integer(integer) => integer.to_string(),
            Cell::Integers(list) => list.iter().map(i64::to_string).collect::<Vec<String>>().join(" "),
            Cell::Absent => String::new(),
        });
        writer.write_record(derived.chain(cells)).map_err(broken)?;
    }
    let bytes = writer.into_inner().map_err(|error| SimError::io(path, "write", error.into_error()))?;
    write_file(path, &bytes)
}

/// Reads points back from Parquet.
///
/// # Errors
/// If the file is missing or is not a table of points.
pub fn read_parquet(path: &Path) -> Result<Vec<Point>, SimError> {
    let file = File::open(path).map_err(|source| SimError::io(path, "open", source))?;
    let foreign = |why: &dyn std::fmt::Display| SimError::Config {
        path: path.into(),
        message: format!("not a table of points ({why}); write it again with `kvtier sweep`"),
    };
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build());
    let mut points = Vec::new();
    for batch in reader.map_err(|error| foreign(&error))? {
        let batch = batch.map_err(|error| foreign(&error))?;
        let schema = batch.schema();
        for row in 0..batch.num_rows() {
            let mut value = Value::Object(Map::new());
            for (field, array) in schema.fields().iter().zip(batch.columns()) {
                if !DERIVED.iter().any(|(name, _)| name == field.name()) {
                    insert(&mut value, field.name(), cell(array, row));
                }
            }
            points.push(serde_json::from_value(value).map_err(|error| foreign(&error))?);
        }
    }
    Ok(points)
}

/// All points as rows over the union of their columns, in order of first appearance.
fn rows(points: &[Point]) -> (Vec<String>, Vec<Vec<Cell>>) {
    let mut names: Vec<String> = Vec::new();
    let mut flat = Vec::with_capacity(points.len());
    for point in points {
        let mut cells = Vec::new();
        flatten("", &serde_json::to_value(point).expect("a point is plain data"), &mut cells);
        for (name, _) in &cells {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        flat.push(cells);
    }
    let take = |cells: Vec<(String, Cell)>| {
        let of = |name: &String| {
            cells.iter().find(|(other, _)| other == name).map_or(Cell::Absent, |(_, c)| c.clone())
        };
        names.iter().map(of).collect()
    };
    let rows = flat.into_iter().map(take).collect();
    (names, rows)
}

fn flatten(prefix: &str, value: &Value, cells: &mut Vec<(String, Cell)>) {
    let Value::Object(fields) = value else { unreachable!("only objects are flattened") };
    for (key, value) in fields {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Object(_) => flatten(&name, value, cells),
            Value::Array(items) => flatten_list(&name, items, cells),
            Value::String(text) => cells.push((name, Cell::Text(text.clone()))),
            number => {
                cells.push((name, Cell::Integer(number.as_i64().expect("points hold 64-bit integers"))))
            }
        }
    }
}

/// A list of objects becomes one list column per field.
fn flatten_list(name: &str, items: &[Value], cells: &mut Vec<(String, Cell)>) {
    let Some(Value::Object(first)) = items.first() else { return };
    for key in first.keys() {
        let list =
            items.iter().map(|item| item[key].as_i64().expect("points hold 64-bit integers")).collect();
        cells.push((format!("{name}[].{key}"), Cell::Integers(list)));
    }
}

fn column<'a>(cells: impl Iterator<Item = &'a Cell> + Clone) -> ArrayRef {
    match cells.clone().find(|cell| **cell != Cell::Absent) {
        Some(Cell::Integer(_)) => {
            let mut builder = Int64Builder::new();
            cells.for_each(|cell| {
                builder.append_option(if let Cell::Integer(i) = cell { Some(*i) } else { None })
            });
            Arc::new(builder.finish())
        }
        Some(Cell::Integers(_)) => {
            let mut builder = ListBuilder::new(Int64Builder::new());
            cells.for_each(|cell| {
                let list =
                    if let Cell::Integers(list) = cell { Some(list.iter().copied().map(Some)) } else { None };
                builder.append_option(list);
            });
            Arc::new(builder.finish())
        }
        _ => {
            let mut builder = StringBuilder::new();
            cells.for_each(|cell| {
                builder.append_option(if let Cell::Text(text) = cell { Some(text) } else { None })
            });
            Arc::new(builder.finish())
        }
    }
}

fn cell(array: &ArrayRef, row: usize) -> Cell {
    if array.is_null(row) {
        return Cell::Absent;
    }
    if let Some(texts) = array.as_string_opt::<i32>() {
        return Cell::Text(texts.value(row).into());
    }
    if let Some(lists) = array.as_list_opt::<i32>() {
        let list = lists.value(row);
        return list
            .as_primitive_opt::<Int64Type>()
            .map_or(Cell::Absent, |list| Cell::Integers(list.values().to_vec()));
    }
    array.as_primitive_opt::<Int64Type>().map_or(Cell::Absent, |integers| Cell::Integer(integers.value(row)))
}

/// Puts a cell back where its column's name says.
fn insert(root: &mut Value, name: &str, cell: Cell) {
    if let Some((list, key)) = name.split_once("[].") {
        let Cell::Integers(items) = cell else { return };
        let all = &mut root[list];
        if all.is_null() {
            *all = Value::Array(vec![Value::Object(Map::new()); items.len()]);
        }
        for (at, item) in items.into_iter().enumerate() {
            all[at][key] = item.into();
        }
        return;
    }
    let value = match cell {
        Cell::Text(text) => text.into(),
        Cell::Integer(integer) => integer.into(),
        Cell::Integers(_) | Cell::Absent => return,
    };
    let place = name.split('.').fold(root, |at, key| &mut at[key]);
    *place = value;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Footprint, LayerTally, PointConfig, PointKind, Status, Tally, TimeTally};

    fn point(id: &str, status: Status, layers: usize) -> Point {
        Point {
            id: id.into(),
            kind: PointKind::Offload,
            status,
            note: String::new(),
            config: PointConfig { trace: "a,\"b\".parquet".into(), k: 32, ..PointConfig::default() },
            steady: Tally { accesses: 10, misses: 3, policy: -2, ..Tally::default() },
            whole: Tally::default(),
            footprint: Footprint::default(),
            time: TimeTally { total_ns: 2_000_000_000, tokens: 8, ..TimeTally::default() },
            amplification_milli: 1500,
            decision_hash: String::new(),
            layers: vec![LayerTally { accesses: 5, misses: 1, slot_steps: 64, buffer_steps: 2 }; layers],
        }
    }

    #[test]
    fn points_survive_parquet_to_the_field() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("points.parquet");
        let points =
            vec![point("a", Status::Ok, 2), point("b", Status::Infeasible("hot: too large".into()), 3)];
        write_parquet(&path, &points).unwrap();
        assert_eq!(read_parquet(&path).unwrap(), points);
        let first = std::fs::read(&path).unwrap();
        write_parquet(&path, &points).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), first, "the same points give the same bytes");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn csv_has_the_same_columns_and_quotes_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("points.csv");
        write_csv(&path, &[point("a", Status::Ok, 2)]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("tokens_per_s,miss_ratio,id,kind,status,"), "{text}");
        assert!(
            text.contains("\n4.000000,0.300000,a,offload,ok,") && text.contains("\"a,\"\"b\"\".parquet\""),
            "{text}"
        );
        assert!(text.contains(",5 5,1 1"), "{text}");
    }

    #[test]
    fn a_foreign_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("points.parquet");
        std::fs::write(&path, "no").unwrap();
        let error = read_parquet(&path).unwrap_err().to_string();
        assert!(error.contains("points.parquet") && error.contains("kvtier sweep"), "{error}");
    }
}
