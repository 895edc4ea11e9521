//! Writes a blob.
//!
//! Takes tensors, constants and steps in any order of declaration; gives the bytes of the [format](super), the same for the same
//! calls. Numbers tensors by first writing, stores identical constants once, and leaves out tensors that no step uses. It refuses
//! what has no place in the format; whether operators accept their steps is what [`crate::Model::load`] says of the result.

use std::collections::HashMap;
use std::fmt;

use super::crc::crc32;
use super::record::{
    DType, InputContract, Packing, RegionRecord, SectionKind, Space, StepRecord, TensorRecord, WeightRecord,
};
use super::{BLOB_ALIGN, HEADER_BYTES, MAGIC, MAJOR, MINOR, SECTION_ENTRY_BYTES};

/// Why a blob could not be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EmitError {
    /// More of something than the format can count.
    TooMany(&'static str),
    /// A step names an operand that was not declared, or reads a tensor that no step before it writes.
    Operand {
        /// Name of the step, or "graph input", "graph output".
        step: String,
        /// The operand.
        operand: u16,
    },
    /// A tensor is written twice.
    WrittenTwice {
        /// Name of the second step.
        step: String,
        /// The tensor.
        tensor: u16,
    },
    /// There must be a contract for each graph input and output, or none.
    Contracts {
        /// Inputs and outputs.
        expected: usize,
        /// Contracts given.
        given: usize,
    },
}

impl std::error::Error for EmitError {}

impl fmt::Display for EmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany(what) => write!(f, "too many {what} for one blob: split the model"),
            Self::Operand { step, operand } => {
                write!(f, "{step}: operand {operand} was not declared or is not written before")
            }
            Self::WrittenTwice { step, tensor } => {
                write!(f, "{step}: tensor {tensor} is written a second time")
            }
            Self::Contracts { expected, given } => {
                write!(f, "{given} contracts for {expected} graph inputs and outputs")
            }
        }
    }
}

struct Step {
    name: String,
    record: StepRecord,
    inputs: Vec<u16>,
    outputs: Vec<u16>,
    weights: Vec<u16>,
}

/// Builds a blob: numbers tensors by first writing, stores identical constants once, leaves out tensors that no step uses.
#[derive(Default)]
pub struct BlobBuilder {
    tensors: Vec<TensorRecord>,
    weights: Vec<WeightRecord>,
    known_weights: HashMap<(u8, u8, Vec<u8>), u16>,
    weight_bytes: Vec<u8>,
    steps: Vec<Step>,
    parameters: Vec<u32>,
    inputs: Vec<u16>,
    outputs: Vec<u16>,
    contracts: Vec<InputContract>,
    regions: Vec<RegionRecord>,
    labels: String,
    model_name: String,
}

impl BlobBuilder {
    /// An empty program.
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares a tensor; gives the number by which steps refer to it.
    pub fn tensor(&mut self, record: TensorRecord) -> u16 {
        self.tensors.push(record);
        index_of_last(&self.tensors)
    }

    /// Adds a constant of little-endian elements; gives the number by which steps refer to it.
    pub fn weight(&mut self, dtype: DType, packing: Packing, bytes: &[u8]) -> u16 {
        let key = (dtype as u8, packing as u8, bytes.to_vec());
        if let Some(&known) = self.known_weights.get(&key) {
            return known;
        }
        pad(&mut self.weight_bytes);
        // Lengths that pass u32 are refused by `finish`, where the sum passes it too.
        self.weights.push(WeightRecord {
            section: 0,
            packing,
            dtype,
            offset: self.weight_bytes.len() as u32,
            elements: (bytes.len() / dtype.bytes()) as u32,
            slack: 0,
        });
        self.weight_bytes.extend_from_slice(bytes);
        let index = index_of_last(&self.weights);
        self.known_weights.insert(key, index);
        index
    }

    /// Adds a step behind the others. `op`: an [`OpCode`](crate::ops::OpCode), or the code of a custom operator. `scratch`: offset in the arena, bytes.
    #[expect(clippy::too_many_arguments, reason = "the parts of a step, each once")]
    pub fn step(
        &mut self,
        name: &str,
        op: impl Into<u16>,
        inputs: &[u16],
        outputs: &[u16],
        weights: &[u16],
        parameters: &[u32],
        scratch: (u32, u32),
    ) {
        let byte = |operands: &[u16]| u8::try_from(operands.len()).unwrap_or(u8::MAX);
        let record = StepRecord {
            op: op.into(),
            inputs: byte(inputs),
            outputs: byte(outputs),
            weights: byte(weights),
            parameters: u16::try_from(parameters.len()).unwrap_or(u16::MAX),
            operands_at: 0,
            parameters_at: self.parameters.len() as u32,
            scratch_at: scratch.0,
            scratch_bytes: scratch.1,
        };
        self.parameters.extend_from_slice(parameters);
        self.steps.push(Step {
            name: name.to_owned(),
            record,
            inputs: inputs.to_vec(),
            outputs: outputs.to_vec(),
            weights: weights.to_vec(),
        });
    }

    /// Lets steps run in turns; in the order of their steps.
    pub fn region(&mut self, region: RegionRecord) {
        self.regions.push(region);
    }

    /// Adds graph inputs.
    pub fn inputs(&mut self, tensors: &[u16]) {
        self.inputs.extend_from_slice(tensors);
    }

    /// Adds graph outputs.
    pub fn outputs(&mut self, tensors: &[u16]) {
        self.outputs.extend_from_slice(tensors);
    }

    /// Adds the contract of the next graph input, or, when all have one, of the next graph output.
    pub fn contract(&mut self, contract: InputContract) {
        self.contracts.push(contract);
    }

    /// Names the classes.
    pub fn labels(&mut self, labels: &[String]) {
        self.labels = labels.iter().map(|label| one_line(label) + "\n").collect();
    }

    /// Names the model.
    pub fn model_name(&mut self, name: &str) {
        self.model_name = one_line(name);
    }

    /// The blob. `align`: that of arena and state, a power of two from 4 to 64, by which all offsets of tensors are divisible.
    ///
    /// # Errors
    /// [`EmitError`]: whatever the format cannot hold.
    pub fn finish(&self, arena_bytes: u32, state_bytes: u32, align: u16) -> Result<Vec<u8>, EmitError> {
        let contracts = self.inputs.len() + self.outputs.len();
        if !self.contracts.is_empty() && self.contracts.len() != contracts {
            return Err(EmitError::Contracts { expected: contracts, given: self.contracts.len() });
        }
        for (what, count, limit) in [
            ("steps", self.steps.len(), usize::from(u16::MAX)),
            ("tensors", self.tensors.len(), usize::from(u16::MAX)),
            ("constants", self.weights.len(), usize::from(u16::MAX)),
            ("bytes of constants", self.weight_bytes.len(), 1 << 31),
            ("parameters", self.parameters.len(), 1 << 24),
        ] {
            if count >= limit {
                return Err(EmitError::TooMany(what));
            }
        }

        let numbers = self.number_tensors()?;
        let mut tensors: Vec<(u16, u16)> =
            numbers.iter().map(|(&declared, &number)| (number, declared)).collect();
        tensors.sort_unstable();
        let (operands, steps) = self.place_operands(&numbers)?;

        let mut names: String = self.steps.iter().map(|step| one_line(&step.name) + "\n").collect();
        names += &self.model_name;
        let viewed = self.views(&tensors);
        let tensors: Vec<_> = tensors
            .iter()
            .map(|&(number, declared)| self.tensors[usize::from(declared)].emit(viewed.get(&number).copied()))
            .collect();
        let weights: Vec<_> = self.weights.iter().map(WeightRecord::emit).collect();
        let steps: Vec<_> = steps.iter().map(StepRecord::emit).collect();
        let contracts: Vec<_> = self.contracts.iter().map(InputContract::emit).collect();
        let operands: Vec<_> = operands.iter().map(|operand| operand.to_le_bytes()).collect();
        let parameters: Vec<_> = self.parameters.iter().map(|word| word.to_le_bytes()).collect();
        let mut sections = vec![
            (SectionKind::Tensors, true, tensors.concat()),
            (SectionKind::WeightRecords, true, weights.concat()),
            (SectionKind::Steps, true, steps.concat()),
            (SectionKind::Operands, true, operands.concat()),
            (SectionKind::Parameters, true, parameters.concat()),
            (SectionKind::Names, false, names.into_bytes()),
        ];
        if !self.regions.is_empty() {
            let regions: Vec<_> = self.regions.iter().map(RegionRecord::emit).collect();
            sections.push((SectionKind::Regions, true, regions.concat()));
        }
        if !self.labels.is_empty() {
            sections.push((SectionKind::Labels, false, self.labels.clone().into_bytes()));
        }
        if !contracts.is_empty() {
            sections.push((SectionKind::Contracts, false, contracts.concat()));
        }
        sections.push((SectionKind::Weights, true, self.weight_bytes.clone()));
        Ok(self.assemble(&sections, arena_bytes, state_bytes, align))
    }

    fn assemble(
        &self,
        sections: &[(SectionKind, bool, Vec<u8>)],
        arena_bytes: u32,
        state_bytes: u32,
        align: u16,
    ) -> Vec<u8> {
        let mut table = Vec::new();
        let mut body = vec![0; HEADER_BYTES + sections.len() * SECTION_ENTRY_BYTES];
        for (kind, critical, bytes) in sections {
            pad(&mut body);
            table.extend_from_slice(&(*kind as u16).to_le_bytes());
            table.extend_from_slice(&u16::from(*critical).to_le_bytes());
            for word in [body.len() as u32, bytes.len() as u32 / kind.record_bytes(), kind.record_bytes(), 0]
            {
                table.extend_from_slice(&word.to_le_bytes());
            }
            body.extend_from_slice(bytes);
        }
        let (weights, structure): (Vec<_>, Vec<_>) =
            sections.iter().partition(|(kind, ..)| *kind == SectionKind::Weights);
        let weights_crc = crc32(&weights.iter().map(|(_, _, bytes)| bytes.as_slice()).collect::<Vec<_>>());

        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&MAJOR.to_le_bytes());
        header.extend_from_slice(&MINOR.to_le_bytes());
        header.extend_from_slice(&0u64.to_le_bytes());
        for word in [body.len() as u32, 0, weights_crc, arena_bytes, state_bytes] {
            header.extend_from_slice(&word.to_le_bytes());
        }
        header.extend_from_slice(&align.to_le_bytes());
        header.extend_from_slice(&(sections.len() as u16).to_le_bytes());
        header.extend_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
        header.extend_from_slice(&(self.inputs.len() as u16).to_le_bytes());
        header.extend_from_slice(&(self.outputs.len() as u16).to_le_bytes());
        header.resize(HEADER_BYTES, 0);
        let mut parts = vec![header.as_slice(), table.as_slice()];
        parts.extend(structure.iter().map(|(_, _, bytes)| bytes.as_slice()));
        let structure_crc = crc32(&parts);
        header[20..24].copy_from_slice(&structure_crc.to_le_bytes());

        body[..HEADER_BYTES].copy_from_slice(&header);
        body[HEADER_BYTES..HEADER_BYTES + table.len()].copy_from_slice(&table);
        body
    }

    /// From declared numbers to stored ones: graph inputs, then arena tensors as steps write them, then state tensors, then views.
    fn number_tensors(&self) -> Result<HashMap<u16, u16>, EmitError> {
        let mut numbers = HashMap::new();
        let mut define = |tensor: u16, step: &str| {
            let number = numbers.len() as u16;
            match numbers.insert(tensor, number) {
                None => Ok(()),
                Some(_) => Err(EmitError::WrittenTwice { step: step.to_owned(), tensor }),
            }
        };
        for &input in &self.inputs {
            define(input, "graph input")?;
        }
        let mut state = Vec::new();
        for step in &self.steps {
            for &tensor in step.inputs.iter().chain(&step.outputs) {
                let declared = self.tensors.get(usize::from(tensor));
                let declared = declared
                    .ok_or_else(|| EmitError::Operand { step: step.name.clone(), operand: tensor })?;
                if declared.space == Space::State && !state.contains(&tensor) {
                    state.push(tensor);
                }
            }
            for &output in step.outputs.iter().filter(|output| !state.contains(output)) {
                define(output, &step.name)?;
            }
        }
        for tensor in state {
            define(tensor, "state")?;
        }
        let written: Vec<u16> = numbers.keys().copied().collect();
        let read = self.steps.iter().flat_map(|step| &step.inputs).chain(&self.outputs);
        for &tensor in read {
            if !numbers.contains_key(&tensor) && written.iter().any(|&other| self.same_place(tensor, other)) {
                numbers.insert(tensor, numbers.len() as u16);
            }
        }
        Ok(numbers)
    }

    /// For each view, by number, the first tensor of its place. `tensors`: numbers and declared tensors, in ascending order.
    fn views(&self, tensors: &[(u16, u16)]) -> HashMap<u16, u16> {
        let written: Vec<u16> =
            self.inputs.iter().chain(self.steps.iter().flat_map(|step| &step.outputs)).copied().collect();
        let state = |tensor: u16| self.tensors[usize::from(tensor)].space == Space::State;
        let views = tensors.iter().filter(|(_, tensor)| !written.contains(tensor) && !state(*tensor));
        views
            .filter_map(|&(number, tensor)| {
                let first = tensors.iter().find(|(_, other)| self.same_place(tensor, *other))?;
                (first.0 < number).then_some((number, first.0))
            })
            .collect()
    }

    /// Whether two declared tensors are views of the same elements.
    fn same_place(&self, a: u16, b: u16) -> bool {
        let place = |tensor: u16| {
            let record = self.tensors.get(usize::from(tensor))?;
            Some((record.space, record.offset, record.dtype, record.bytes()?))
        };
        place(a).is_some() && place(a) == place(b)
    }

    /// The operand section, and the steps' records that point into it.
    fn place_operands(&self, numbers: &HashMap<u16, u16>) -> Result<(Vec<u16>, Vec<StepRecord>), EmitError> {
        let number = |tensor: u16, step: &str| {
            numbers.get(&tensor).copied().ok_or(EmitError::Operand { step: step.to_owned(), operand: tensor })
        };
        let mut operands = Vec::new();
        for &input in &self.inputs {
            operands.push(number(input, "graph input")?);
        }
        for &output in &self.outputs {
            operands.push(number(output, "graph output")?);
        }
        let mut written = self.inputs.clone();
        let mut records = Vec::new();
        for step in &self.steps {
            let name = step.name.as_str();
            let record = StepRecord { operands_at: operands.len() as u32, ..step.record };
            let counts = [&step.inputs, &step.outputs, &step.weights].map(Vec::len);
            if counts.iter().any(|&count| count > usize::from(u8::MAX)) {
                return Err(EmitError::TooMany("operands of one step"));
            }
            for &input in &step.inputs {
                let stored = number(input, name)?;
                let state = self.tensors[usize::from(input)].space == Space::State;
                let known = |other: &u16| *other == input || self.same_place(input, *other);
                if !state && !written.iter().any(known) {
                    return Err(EmitError::Operand { step: step.name.clone(), operand: input });
                }
                operands.push(stored);
            }
            for &output in &step.outputs {
                written.push(output);
                operands.push(number(output, name)?);
            }
            for &weight in &step.weights {
                if usize::from(weight) >= self.weights.len() {
                    return Err(EmitError::Operand { step: step.name.clone(), operand: weight });
                }
                operands.push(weight);
            }
            records.push(record);
        }
        Ok((operands, records))
    }
}

fn index_of_last<T>(items: &[T]) -> u16 {
    u16::try_from(items.len() - 1).unwrap_or(u16::MAX)
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(BLOB_ALIGN), 0);
}

/// Names stand one a line.
fn one_line(name: &str) -> String {
    name.replace(['\n', '\r'], " ")
}
