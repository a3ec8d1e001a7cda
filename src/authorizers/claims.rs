//! What a verified token says.

use serde_json::{Map, Value};

/// The claims of a token whose signature and times are good.
#[derive(Debug)]
pub(super) struct Claims(pub(super) Map<String, Value>);

impl Claims {
    /// The value of a claim. Dots lead into objects, unless a name has them itself, as URLs do.
    pub(super) fn value(&self, path: &str) -> Option<&Value> {
        lookup(&self.0, path)
    }

    /// The values of a claim that can be part of a name: strings that are not empty, and whole numbers. `[*]` means any
    /// item of a list. Fractions and numbers beyond 64 bits are left out: two of them can look the same.
    pub(super) fn texts(&self, path: &str) -> Vec<String> {
        let mut found = Vec::new();
        match path.split_once("[*]") {
            None => found.extend(self.value(path)),
            Some((list, rest)) => collect(self.value(list), rest, &mut found),
        }
        found.into_iter().filter_map(text).collect()
    }
}

fn lookup<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    claims.get(path).or_else(|| {
        let (name, rest) = path.split_once('.')?;
        lookup(claims.get(name)?.as_object()?, rest)
    })
}

/// Goes through a list, and through the lists inside its items.
fn collect<'a>(list: Option<&'a Value>, path: &str, found: &mut Vec<&'a Value>) {
    for item in list.and_then(Value::as_array).into_iter().flatten() {
        let path = path.strip_prefix('.').unwrap_or(path);
        let below = |path: &str| lookup(item.as_object()?, path);
        match path.split_once("[*]") {
            _ if path.is_empty() => found.push(item),
            Some(("", rest)) => collect(Some(item), rest, found),
            Some((list, rest)) => collect(below(list), rest, found),
            None => found.extend(below(path)),
        }
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_path_leads_to_texts_and_whole_numbers_only() {
        let Value::Object(claims) = json!({
            "sub": "7", "n": 8, "big": 18_446_744_073_709_551_616_f64, "half": 1.5, "none": null, "empty": "", "yes": true,
            "user": { "id": "9", "tags": ["a", 1, "", null, ["x"], { "id": "o" }] },
            "https://a.example/roles": ["admin"],
            "orgs": [{ "id": 1, "teams": ["p", "q"] }, { "id": "two" }, "three"],
            "nested": [["m"], ["n", 5]],
        }) else {
            panic!()
        };
        let claims = Claims(claims);
        let table: [(&str, &[&str]); 18] = [
            ("sub", &["7"]),
            ("n", &["8"]),
            ("big", &[]),
            ("half", &[]),
            ("none", &[]),
            ("empty", &[]),
            ("yes", &[]),
            ("user", &[]),
            ("user.id", &["9"]),
            ("user.tags", &[]),
            ("user.tags[*]", &["a", "1"]),
            ("https://a.example/roles[*]", &["admin"]),
            ("orgs[*].id", &["1", "two"]),
            ("orgs[*].teams[*]", &["p", "q"]),
            ("nested[*][*]", &["m", "n", "5"]),
            ("sub[*]", &[]),
            ("sub.id", &[]),
            ("missing", &[]),
        ];
        for (path, expected) in table {
            assert_eq!(claims.texts(path), expected, "{path}");
        }
    }
}
