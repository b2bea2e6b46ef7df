//! Does a document conform to its schema in this directory? Part of the unit tests, too, for what only a running daemon makes one print.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests read the repository's own files")]

use std::path::{Path, PathBuf};

use serde_json::Value;

/// The directory of schemas.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemas")
}

/// The schema of this name.
pub fn schema(name: &str) -> Value {
    let path = directory().join(format!("{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))).unwrap()
}

/// Fails with all that does not conform.
#[track_caller]
pub fn conforms(name: &str, document: &Value) {
    let violations = violations(&schema(name), document);
    assert!(violations.is_empty(), "{name}: {violations:#?} in {document:#}");
}

/// What is wrong with a document, by this schema.
pub fn violations(schema: &Value, document: &Value) -> Vec<String> {
    let validator = jsonschema::draft202012::new(schema).unwrap();
    validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}
