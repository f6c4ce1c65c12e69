//! RFC 6902, as the library that Talos uses applies it (`evanphx/json-patch`): negative indices count from the end.

use super::PatchError;
use crate::yaml::{Map, Value};

/// One operation.
#[derive(Clone, Debug)]
pub struct Operation {
    act: Act,
    path: String,
}

#[derive(Clone, Debug)]
enum Act {
    Add(Value),
    Remove,
    Replace(Value),
    Move(String),
    Copy(String),
    Test(Value),
}

pub(super) fn read(items: Vec<Value>) -> Result<Vec<Operation>, PatchError> {
    if items.is_empty() {
        return Err(PatchError::Kind("it has no operation".into()));
    }
    items.into_iter().enumerate().map(|(index, item)| operation(index, &item)).collect()
}

fn operation(index: usize, item: &Value) -> Result<Operation, PatchError> {
    let wants = |what: &str| PatchError::Kind(format!("operation {} {what}", index + 1));
    let text = |key: &str| item.text_at(&[key]).map(str::to_string);
    let path = text("path").ok_or_else(|| wants("has no `path`"))?;
    if !path.is_empty() && !path.starts_with('/') {
        return Err(wants("has a `path` that does not begin with `/`"));
    }
    let value = || item.at(&["value"]).cloned().ok_or_else(|| wants("has no `value`"));
    let from = || text("from").ok_or_else(|| wants("has no `from`"));
    let act = match text("op").as_deref() {
        Some("add") => Act::Add(value()?),
        Some("remove") => Act::Remove,
        Some("replace") => Act::Replace(value()?),
        Some("move") => Act::Move(from()?),
        Some("copy") => Act::Copy(from()?),
        Some("test") => Act::Test(item.at(&["value"]).cloned().unwrap_or(Value::Plain("null".into()))),
        _ => return Err(wants("has no `op` of RFC 6902: add, remove, replace, move, copy, test")),
    };
    Ok(Operation { act, path })
}

pub(super) fn apply(operation: &Operation, root: &mut Value) -> Result<(), PatchError> {
    let path = operation.path.as_str();
    match &operation.act {
        Act::Add(value) => add(root, path, value.clone()),
        Act::Remove => remove(root, path).map(drop),
        Act::Replace(value) => {
            *find(root, path).ok_or_else(|| nothing(path))? = value.clone();
            Ok(())
        }
        Act::Move(from) => {
            let value = remove(root, from)?;
            add(root, path, value)
        }
        Act::Copy(from) => {
            let value = find(root, from).ok_or_else(|| nothing(from))?.clone();
            add(root, path, value)
        }
        Act::Test(wanted) => {
            let found = find(root, path);
            let same = match found {
                Some(found) => same(found, wanted),
                None => wanted.is_null(),
            };
            if same { Ok(()) } else { Err(fit(path, "the test finds another value")) }
        }
    }
}

fn fit(path: &str, what: &str) -> PatchError {
    PatchError::Fit { place: path.into(), what: what.into() }
}

fn nothing(path: &str) -> PatchError {
    fit(path, "nothing is there")
}

/// The parts of a JSON pointer (RFC 6901).
fn parts(path: &str) -> Vec<String> {
    path.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~")).collect()
}

fn index(part: &str, length: usize) -> Option<usize> {
    match part.parse::<i64>().ok()? {
        n if n < 0 => length.checked_sub(usize::try_from(n.unsigned_abs()).ok()?),
        n => usize::try_from(n).ok(),
    }
}

fn find<'a>(root: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    parts(path).iter().try_fold(root, |value, part| match value {
        Value::Map(map) => map.get_mut(part),
        Value::List(items) => {
            let index = index(part, items.len())?;
            items.get_mut(index)
        }
        _ => None,
    })
}

/// The container that a path's last part is in, and that part.
fn container<'a>(root: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), PatchError> {
    let (parent, _) =
        path.rsplit_once('/').ok_or_else(|| fit(path, "the whole document cannot be changed at once"))?;
    let last = parts(path).pop().unwrap_or_default();
    let found = find(root, parent).ok_or_else(|| fit(path, "what it would be in is not there"))?;
    Ok((found, last))
}

fn add(root: &mut Value, path: &str, value: Value) -> Result<(), PatchError> {
    match container(root, path)? {
        (Value::Map(map), key) => map.set(key, value),
        (Value::List(items), part) if part == "-" => items.push(value),
        (Value::List(items), part) => {
            // Counted in the list as it will be.
            let place = index(&part, items.len() + 1).filter(|place| *place <= items.len());
            items.insert(place.ok_or_else(|| fit(path, "the list has no such place"))?, value);
        }
        _ => return Err(fit(path, "it would be in a single value")),
    }
    Ok(())
}

fn remove(root: &mut Value, path: &str) -> Result<Value, PatchError> {
    match container(root, path)? {
        (Value::Map(map), key) => map.remove(&key).ok_or_else(|| nothing(path)),
        (Value::List(items), part) => match index(&part, items.len()).filter(|place| *place < items.len()) {
            Some(place) => Ok(items.remove(place)),
            None => Err(nothing(path)),
        },
        _ => Err(nothing(path)),
    }
}

/// Equal as JSON: order of keys says nothing.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Map(a), Value::Map(b)) => {
            let inside =
                |a: &Map, b: &Map| a.iter().all(|(k, v)| b.get(k).is_some_and(|other| same(v, other)));
            a.len() == b.len() && inside(a, b)
        }
        (Value::Plain(a), Value::Plain(b)) => a == b,
        _ if a.is_null() || b.is_null() => a.is_null() && b.is_null(),
        // A text without quotes and one with them is the same text; a number and its text are not.
        _ => a.as_str().is_some() && a.as_str() == b.as_str() && !is_typed(a) && !is_typed(b),
    }
}

fn is_typed(value: &Value) -> bool {
    let Value::Plain(text) = value else { return false };
    matches!(text.as_ref(), "true" | "false") || text.parse::<f64>().is_ok()
}
