//! Lists as one parameter of a statement, so that it is the same however long they are.

use taskwright_model::TaskId;

use crate::queue::sql::Sql;

/// A statement for the texts in a JSON array, which is the parameter of this number.
pub(super) fn members<S: Sql>(parameter: u32) -> String {
    if S::POSTGRES {
        format!("SELECT json_array_elements_text(CAST(CAST(?{parameter} AS TEXT) AS json))")
    } else {
        format!("SELECT value FROM json_each(?{parameter})")
    }
}

/// A statement whose last column is to be one of the [`ids`] that are its parameter ?1.
pub(super) fn one_of<S: Sql>(statement: &str) -> String {
    if S::POSTGRES {
        // A planner knows more of an array than of a statement for its members.
        format!("{statement} = ANY (CAST(CAST(?1 AS TEXT) AS TEXT[]))")
    } else {
        format!("{statement} IN ({})", members::<S>(1))
    }
}

/// Ids for [`one_of`].
pub(super) fn ids<S: Sql>(ids: impl Iterator<Item = TaskId>) -> String {
    let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
    if S::POSTGRES {
        array(ids.iter().map(String::as_str))
    } else {
        serde_json::to_string(&ids).unwrap_or_default()
    }
}

/// Texts as PostgreSQL writes an array of them: each in quotes, with a backslash before quotes and
/// backslashes within.
pub(super) fn array<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let mut array = String::from("{");
    for (place, text) in texts.enumerate() {
        array.push_str(if place == 0 { "\"" } else { ",\"" });
        for character in text.chars() {
            if matches!(character, '"' | '\\') {
                array.push('\\');
            }
            array.push(character);
        }
        array.push('"');
    }
    array.push('}');
    array
}

#[cfg(test)]
mod tests {
    //! Arrays in the words of PostgreSQL.
    use super::*;

    #[test]
    fn texts_are_quoted() {
        assert_eq!(array(std::iter::empty()), "{}");
        let some = ["a,b", "", "NULL", "say \"\\n\"", "{}"];
        let list = "{\"a,b\",\"\",\"NULL\",\"say \\\"\\\\n\\\"\",\"{}\"}";
        assert_eq!(array(some.into_iter()), list);
    }
}
