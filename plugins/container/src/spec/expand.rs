//! `$(NAME)` in commands, arguments and variables, as Kubernetes expands it.

/// Puts in what `value` knows. `$(NAME)` that it does not know stays as it is, `$$` is one `$`:
/// so `$$(NAME)` is `$(NAME)` and no reference.
pub(crate) fn expand<'v>(text: &str, value: impl Fn(&str) -> Option<&'v str>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        rest = after;
        if let Some(escaped) = after.strip_prefix('$') {
            expanded.push('$');
            rest = escaped;
        } else if let Some((name, behind)) =
            after.strip_prefix('(').and_then(|it| it.split_once(')'))
        {
            match value(name) {
                Some(known) => expanded.push_str(known),
                None => {
                    expanded.push_str("$(");
                    expanded.push_str(name);
                    expanded.push(')');
                }
            }
            rest = behind;
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_expand_as_in_kubernetes() {
        for (text, expected) in [
            ("$(A)", "1"),
            ("x$(A)y$(B)z", "x1y$(A)z"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$$$$(A)", "$$(A)"),
            ("$(MISSING)", "$(MISSING)"),
            ("$(date +%s)", "$(date +%s)"),
            ("$(A", "$(A"),
            ("$A ${A} $", "$A ${A} $"),
            ("$(EMPTY)", ""),
            ("", ""),
            ("$()", "$()"),
            ("ä$(A)ö", "ä1ö"),
        ] {
            let value = |name: &str| match name {
                "A" => Some("1"),
                "B" => Some("$(A)"),
                "EMPTY" => Some(""),
                _ => None,
            };
            assert_eq!(expand(text, value), expected, "{text}");
        }
    }
}
