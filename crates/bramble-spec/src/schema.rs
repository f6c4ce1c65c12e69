//! The JSON Schema of the file, for editors.

use crate::decode::{Decode, Definitions};
use crate::types::Cluster;
use serde_json::{Value, json};

/// Address that names the schema; nothing is fetched from it.
const ID: &str = "https://bramble.home.arpa/schema/v1alpha1/bramble.schema.json";

/// JSON Schema (draft 2020-12) of `bramble.yaml`, from the same declarations that decode it.
pub fn json_schema() -> Value {
    let mut definitions = Definitions::new();
    let root = Cluster::schema(&mut definitions);
    definitions.sort_keys();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": ID,
        "title": "bramble.yaml",
        "description": "A cluster of small machines at home, as Bramble reads it.",
        "$ref": root["$ref"],
        "$defs": definitions,
    })
}
