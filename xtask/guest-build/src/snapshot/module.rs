//! A core module, called in an interpreter and written anew with the memory and the globals that
//! the call has left.
//!
//! Of what a module can be, only what compilers make of Rust is taken: one memory of its own, set
//! up by its data segments, and a table that nobody changes. All else is refused, because its state
//! would not be the same.

use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{
    ConstExpr, DataSection, ExportKind, ExportSection, GlobalSection, MemorySection, Module,
    RawSection,
};
use wasmi::{Config, Engine, Error, ExternType, Instance, Linker, Store, Val};
use wasmparser::{DataKind, FunctionBody, Operator, Parser, Payload, TypeRef};

/// Steps that the function may take; making the engine of scripts takes some millions.
const MOST_STEPS: u64 = 100_000_000;
/// So many zeros between two parts of the memory are left out of the module.
const GAP: usize = 64;
/// What stands before the names under which a call is observed.
const OBSERVED: &str = "observed ";

/// A module as it is after the call; `None` if it does not export the function.
///
/// # Errors
/// What stands in the way, in a sentence.
pub(super) fn after(module: &[u8], function: &str) -> Result<Option<Vec<u8>>, String> {
    let told = |error: String| format!("its module: {error}");
    let read = read(module).map_err(told)?;
    if !read.exports.iter().any(|export| export.name == function) {
        return Ok(None);
    }
    read.check().map_err(told)?;
    let observable = read.observable().map_err(told)?;
    let state = call(&observable, function, read.counters.len())
        .map_err(|error| format!("the call of {function}: {error}"))?;
    read.rewritten(&state).map(Some).map_err(told)
}

/// What the call has left.
struct State {
    memory: Vec<u8>,
    /// The values of the globals that can change, in order.
    globals: Vec<Val>,
}

/// A module, section by section.
struct Read<'a> {
    payloads: Vec<(Payload<'a>, Option<RawSection<'a>>)>,
    exports: Vec<wasmparser::Export<'a>>,
    /// The globals that can change, by number.
    counters: Vec<u32>,
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn read(module: &[u8]) -> Result<Read<'_>, String> {
    let mut read = Read {
        payloads: Vec::new(),
        exports: Vec::new(),
        counters: Vec::new(),
    };
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload.map_err(said)?;
        match &payload {
            Payload::ExportSection(exports) => {
                let exports = exports.clone().into_iter().collect::<Result<_, _>>();
                read.exports = exports.map_err(said)?;
            }
            Payload::GlobalSection(globals) => {
                for (number, global) in (0..).zip(globals.clone()) {
                    if global.map_err(said)?.ty.mutable {
                        read.counters.push(number);
                    }
                }
            }
            _ => {}
        }
        let section = match payload.as_section() {
            Some((id, range)) => Some(RawSection {
                id,
                data: super::bytes(module, &range)?,
            }),
            None => None,
        };
        read.payloads.push((payload, section));
    }
    Ok(read)
}

impl Read<'_> {
    /// Nothing may be in it whose state would be lost.
    fn check(&self) -> Result<(), String> {
        let refuse = |what: &str| Err(format!("{what}, which no snapshot can hold"));
        for (payload, _) in &self.payloads {
            match payload {
                Payload::ImportSection(imports) => {
                    for import in imports.clone().into_imports() {
                        if !matches!(import.map_err(said)?.ty, TypeRef::Func(_)) {
                            return refuse("it imports something else than functions");
                        }
                    }
                }
                Payload::MemorySection(memories) if memories.count() != 1 => {
                    return refuse("it has several memories");
                }
                Payload::StartSection { .. } => return refuse("it has a start function"),
                Payload::DataCountSection { .. } => return refuse("it counts its data segments"),
                Payload::DataSection(segments) => {
                    for segment in segments.clone() {
                        if matches!(segment.map_err(said)?.kind, DataKind::Passive) {
                            return refuse("it sets up its memory itself");
                        }
                    }
                }
                Payload::CodeSectionEntry(body) if changes_tables(body).map_err(said)? => {
                    return refuse("it changes a table");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The same, with its memory and its globals to be looked at.
    fn observable(&self) -> Result<Vec<u8>, String> {
        let module = self.written(|payload, module| {
            if !matches!(payload, Payload::ExportSection(_)) {
                return Ok(false);
            }
            let mut exports = self.exports()?;
            exports.export(&format!("{OBSERVED}memory"), ExportKind::Memory, 0);
            for (index, &number) in self.counters.iter().enumerate() {
                exports.export(&format!("{OBSERVED}{index}"), ExportKind::Global, number);
            }
            module.section(&exports);
            Ok(true)
        })?;
        Ok(module.finish())
    }

    fn exports(&self) -> Result<ExportSection, String> {
        let mut exports = ExportSection::new();
        for export in &self.exports {
            let kind = RoundtripReencoder.export_kind(export.kind).map_err(said)?;
            exports.export(export.name, kind, export.index);
        }
        Ok(exports)
    }

    /// The same, beginning with this state.
    fn rewritten(&self, state: &State) -> Result<Vec<u8>, String> {
        let mut data_is_written = false;
        let mut write_data = |module: &mut Module| {
            if !std::mem::replace(&mut data_is_written, true) {
                module.section(&data(&state.memory));
            }
        };
        let mut rewritten = self.written(|payload, module| {
            match payload {
                Payload::MemorySection(memories) => {
                    let mut section = MemorySection::new();
                    for memory in memories.clone() {
                        let memory = memory.map_err(said)?;
                        let mut kind = RoundtripReencoder.memory_type(memory).map_err(said)?;
                        let page = 1_u64 << memory.page_size_log2.unwrap_or(16);
                        kind.minimum = state.memory.len() as u64 / page;
                        section.memory(kind);
                    }
                    module.section(&section);
                }
                Payload::GlobalSection(globals) => {
                    let mut section = GlobalSection::new();
                    let mut values = state.globals.iter();
                    for global in globals.clone() {
                        let global = global.map_err(said)?;
                        if !global.ty.mutable {
                            RoundtripReencoder
                                .parse_global(&mut section, global)
                                .map_err(said)?;
                            continue;
                        }
                        let kind = RoundtripReencoder.global_type(global.ty).map_err(said)?;
                        let value = values.next().and_then(constant);
                        let value = value.ok_or("it has a global that is no number")?;
                        section.global(kind, &value);
                    }
                    module.section(&section);
                }
                Payload::DataSection(_) => write_data(module),
                // They come after the data.
                Payload::CustomSection(_) => {
                    write_data(module);
                    return Ok(false);
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        write_data(&mut rewritten);
        Ok(rewritten.finish())
    }

    /// Section for section; `instead` says whether it has written another one.
    fn written(
        &self,
        mut instead: impl FnMut(&Payload<'_>, &mut Module) -> Result<bool, String>,
    ) -> Result<Module, String> {
        let mut module = Module::new();
        for (payload, section) in &self.payloads {
            let Some(section) = section else {
                continue;
            };
            if !instead(payload, &mut module)? {
                module.section(section);
            }
        }
        Ok(module)
    }
}

fn changes_tables(body: &FunctionBody<'_>) -> wasmparser::Result<bool> {
    for operator in body.get_operators_reader()? {
        if matches!(
            operator?,
            Operator::TableSet { .. }
                | Operator::TableGrow { .. }
                | Operator::TableFill { .. }
                | Operator::TableCopy { .. }
                | Operator::TableInit { .. }
                | Operator::ElemDrop { .. }
        ) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn constant(value: &Val) -> Option<ConstExpr> {
    match value {
        Val::I32(value) => Some(ConstExpr::i32_const(*value)),
        Val::I64(value) => Some(ConstExpr::i64_const(*value)),
        _ => None,
    }
}

/// A memory as segments, without the zeros between them.
fn data(memory: &[u8]) -> DataSection {
    let mut section = DataSection::new();
    let mut begin = None;
    let mut end = 0;
    for (place, &byte) in memory.iter().enumerate() {
        if byte == 0 {
            continue;
        }
        match begin {
            Some(first) if place - end > GAP => {
                put(&mut section, memory, first, end);
                begin = Some(place);
            }
            Some(_) => {}
            None => begin = Some(place),
        }
        end = place + 1;
    }
    if let Some(first) = begin {
        put(&mut section, memory, first, end);
    }
    section
}

fn put(section: &mut DataSection, memory: &[u8], first: usize, end: usize) {
    let bytes = memory.get(first..end).unwrap_or_default();
    // A memory of 32 bits: places beyond the half are negative numbers.
    let place = (first as u32).cast_signed();
    section.active(0, &ConstExpr::i32_const(place), bytes.iter().copied());
}

/// Calls the function, and looks at what it leaves.
fn call(module: &[u8], function: &str, counters: usize) -> Result<State, Error> {
    let engine = Engine::new(Config::default().consume_fuel(true));
    let module = wasmi::Module::new(&engine, module)?;
    let mut store = Store::new(&engine, ());
    store.set_fuel(MOST_STEPS)?;
    let instance = instance(&mut store, &module)?;
    let called = instance
        .get_func(&store, function)
        .ok_or_else(|| Error::new("it is no function"))?;
    let kinds = called.ty(&store);
    let mut results: Vec<Val> = kinds
        .results()
        .iter()
        .map(|&kind| Val::default_for_ty(kind))
        .collect();
    called.call(&mut store, &[], &mut results)?;
    let memory = instance
        .get_memory(&store, &format!("{OBSERVED}memory"))
        .ok_or_else(|| Error::new("it has no memory"))?;
    let globals = (0..counters).filter_map(|index| {
        let global = instance.get_global(&store, &format!("{OBSERVED}{index}"))?;
        Some(global.get(&store))
    });
    Ok(State {
        globals: globals.collect(),
        memory: memory.data(&store).to_vec(),
    })
}

/// An instance to which no import gives an answer.
fn instance(store: &mut Store<()>, module: &wasmi::Module) -> Result<Instance, Error> {
    let mut linker = Linker::new(store.engine());
    for import in module.imports() {
        let ExternType::Func(kind) = import.ty() else {
            continue;
        };
        let name = format!("{}.{}", import.module(), import.name());
        let refuse = move |_: wasmi::Caller<'_, ()>, _: &[Val], _: &mut [Val]| {
            Err(Error::new(format!("it asked for {name}")))
        };
        linker.func_new(import.module(), import.name(), kind.clone(), refuse)?;
    }
    linker.instantiate_and_start(store, module)
}
