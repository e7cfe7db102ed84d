//! A component that begins where a call has left it: the build calls a function of it once, and
//! what is in memory then is the memory of every instance from its first step on.
//!
//! The function runs in an interpreter that has nothing to offer: one import called, and there is
//! no snapshot. So nothing of the machine that builds can be in it, no clock, no random number,
//! no variable, and the same sources make the same component.

mod module;

use std::ops::Range;

use wasm_encoder::{Component, ComponentSectionId, RawSection};
use wasmparser::{Parser, Payload};

/// `component` as it is after one call of `function`, which takes nothing and is exported by one of
/// its modules.
///
/// # Errors
/// What stands in the way, in a sentence.
pub(crate) fn of(component: &[u8], function: &str) -> Result<Vec<u8>, String> {
    let mut snapshot = Component::new();
    let mut found = false;
    // Payloads of what is within a module or a component come too: only whole sections of the
    // outermost count, and `depth` tells how far inside a payload is.
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.map_err(|error| format!("it is no component: {error}"))?;
        let outermost = depth == 0;
        match &payload {
            Payload::ModuleSection {
                unchecked_range, ..
            } => {
                depth += 1;
                if outermost {
                    let module = bytes(component, unchecked_range)?;
                    let called = module::after(module, function)?;
                    found |= called.is_some();
                    snapshot.section(&RawSection {
                        id: ComponentSectionId::CoreModule.into(),
                        data: called.as_deref().unwrap_or(module),
                    });
                }
            }
            Payload::ComponentSection {
                unchecked_range, ..
            } => {
                depth += 1;
                if outermost {
                    snapshot.section(&RawSection {
                        id: ComponentSectionId::Component.into(),
                        data: bytes(component, unchecked_range)?,
                    });
                }
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            other if outermost => {
                if let Some((id, range)) = other.as_section() {
                    let data = bytes(component, &range)?;
                    snapshot.section(&RawSection { id, data });
                }
            }
            _ => {}
        }
    }
    match found {
        true => Ok(snapshot.finish()),
        false => Err(format!("none of its modules exports {function}")),
    }
}

fn bytes<'a>(whole: &'a [u8], range: &Range<usize>) -> Result<&'a [u8], String> {
    let bytes = whole.get(range.clone());
    bytes.ok_or_else(|| "a section of it ends beyond its end".to_owned())
}

#[cfg(test)]
mod tests {
    //! Modules that count their calls in a global and in memory.
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use wasm_encoder::{
        CodeSection, ConstExpr, CustomSection, EntityType, ExportKind, ExportSection, Function,
        FunctionSection, GlobalSection, GlobalType, ImportSection, MemArg, MemorySection,
        MemoryType, ModuleSection, StartSection, TypeSection, ValType,
    };

    use super::*;

    /// What the exported function does when it has counted.
    #[derive(Clone, Copy, PartialEq)]
    enum Then {
        Returns,
        /// And it is called by whoever makes an instance, too.
        Begins,
        AsksTheHost,
        NeverEnds,
    }

    fn counting(export: &str, then: Then) -> wasm_encoder::Module {
        let mut types = TypeSection::new();
        types.ty().function([], []);
        let mut imports = ImportSection::new();
        imports.import("host", "ask", EntityType::Function(0));
        let mut functions = FunctionSection::new();
        functions.function(0);
        let mut memories = MemorySection::new();
        memories.memory(MemoryType {
            minimum: 1,
            maximum: None,
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        let mut globals = GlobalSection::new();
        let counter = GlobalType {
            val_type: ValType::I32,
            mutable: true,
            shared: false,
        };
        globals.global(counter, &ConstExpr::i32_const(0));
        let mut exports = ExportSection::new();
        exports.export(export, ExportKind::Func, 1);
        exports.export("memory", ExportKind::Memory, 0);
        exports.export("counter", ExportKind::Global, 0);
        let mut body = Function::new([]);
        let mut code = body.instructions();
        code.global_get(0).i32_const(1).i32_add().global_set(0);
        let place = MemArg {
            offset: 4096,
            align: 2,
            memory_index: 0,
        };
        code.i32_const(0).global_get(0).i32_store(place);
        match then {
            Then::Returns | Then::Begins => {}
            Then::AsksTheHost => {
                code.call(0);
            }
            Then::NeverEnds => {
                code.loop_(wasm_encoder::BlockType::Empty).br(0).end();
            }
        }
        code.end();
        let mut bodies = CodeSection::new();
        bodies.function(&body);
        let mut module = wasm_encoder::Module::new();
        module
            .section(&types)
            .section(&imports)
            .section(&functions)
            .section(&memories)
            .section(&globals)
            .section(&exports);
        if then == Then::Begins {
            module.section(&StartSection { function_index: 1 });
        }
        module.section(&bodies);
        module
    }

    fn component(modules: &[&wasm_encoder::Module]) -> Vec<u8> {
        let mut component = Component::new();
        for module in modules {
            component.section(&ModuleSection(module));
        }
        component.section(&CustomSection {
            name: "kept".into(),
            data: b"as it is".as_slice().into(),
        });
        component.finish()
    }

    fn holds(bytes: &[u8], part: &[u8]) -> bool {
        bytes.windows(part.len()).any(|window| window == part)
    }

    /// The modules of a component, as they are.
    fn modules(component: &[u8]) -> Vec<Vec<u8>> {
        let payloads = Parser::new(0).parse_all(component).map(Result::unwrap);
        payloads
            .filter_map(|payload| match payload {
                Payload::ModuleSection {
                    unchecked_range, ..
                } => component.get(unchecked_range).map(<[u8]>::to_vec),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn it_begins_where_one_call_has_left_it_and_all_else_is_as_it_was() {
        let other = counting("another", Then::NeverEnds);
        let before = component(&[&other, &counting("begin", Then::Returns)]);
        let other = other.finish();
        let after = of(&before, "begin").unwrap();
        assert_eq!(after, of(&before, "begin").unwrap());
        wasmparser::Validator::new().validate_all(&after).unwrap();
        assert!(after.ends_with(b"\x04keptas it is"));
        let [untouched, called] = &modules(&after)[..] else {
            panic!("two modules went in");
        };
        assert_eq!(*untouched, other);
        // Begun from there, it counts on.
        let twice = of(&after, "begin").unwrap();
        let counted = |count: u8| [0x41, count, 0x0b];
        assert!(holds(called, &counted(1)) && holds(&twice, &counted(2)));
        // At place 4096, one byte: the rest of the number is zeros.
        let segment = |count: u8| [0x00, 0x41, 0x80, 0x20, 0x0b, 0x01, count];
        assert!(holds(called, &segment(1)) && holds(&twice, &segment(2)));
    }

    #[test]
    fn what_asks_the_host_or_does_not_end_or_is_not_there_has_no_snapshot() {
        for (then, told) in [
            (Then::AsksTheHost, "it asked for host.ask"),
            (Then::NeverEnds, "fuel"),
            (Then::Begins, "it has a start function"),
        ] {
            let refused = of(&component(&[&counting("begin", then)]), "begin").unwrap_err();
            assert!(refused.contains(told), "{refused}");
        }
        let refused = of(&component(&[]), "begin").unwrap_err();
        assert_eq!(refused, "none of its modules exports begin");
        let refused = of(b"\0asm and no more", "begin").unwrap_err();
        assert!(refused.starts_with("it is no component"), "{refused}");
    }
}
