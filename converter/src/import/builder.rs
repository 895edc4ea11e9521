//! Walks the nodes of an ONNX graph and builds a [`Graph`].
//!
//! Each node is folded if all it reads is constant, translated by [`super::operators`] otherwise. A node that can be
//! neither becomes a [`Blocker`]; its result is then unknown, and nodes that read it are passed over silently unless
//! their operator is never supported.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::rc::Rc;

use super::attributes::Attributes;
use super::constant::{Constant, DType};
use super::error::{Blocker, Blockers};
use super::fold::{self, Budget, Operands};
use super::onnx::{DimensionProto, GraphProto, ModelProto, NodeProto, ValueInfoProto};
use super::operators;
use super::order::order;
use super::shape;
use super::{Error, Options};
use crate::graph::{Graph, Node, Op, ValueId};

/// What a name of the ONNX graph stands for.
#[derive(Clone)]
pub enum Slot {
    /// Known now.
    Constant(Rc<Constant>),
    /// Computed on the target.
    Activation(ValueId),
    /// Behind a blocker; the flag tells that it would have been constant.
    Unknown { constant: bool },
}

/// Why a node cannot be imported.
#[derive(Debug)]
pub struct Refusal {
    pub why: String,
    pub fix: String,
}

impl Refusal {
    pub fn new(why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { why: why.into(), fix: fix.into() }
    }
}

/// Problems found by shape arithmetic and attribute access mean a malformed node.
impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self::new(
            why,
            "run onnx.checker.check_model with full_check and export the model again; check `--batch`",
        )
    }
}

impl From<&str> for Refusal {
    fn from(why: &str) -> Self {
        why.to_string().into()
    }
}

/// A node and what its inputs stand for.
pub struct Call<'a> {
    pub node: &'a NodeProto,
    /// Its name, or one made of operator and output.
    pub name: String,
    pub opset: i64,
    pub inputs: Vec<Option<Slot>>,
}

impl<'a> Call<'a> {
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes(self.node)
    }

    pub fn activation(&self, k: usize) -> Result<ValueId, Refusal> {
        match self.inputs.get(k) {
            Some(Some(Slot::Activation(id))) => Ok(*id),
            Some(Some(_)) => Err(Refusal::new(
                format!("input {k} (`{}`) is constant", self.node.input[k]),
                "only the other inputs may be constant; rewrite the layer so",
            )),
            _ => Err(format!("input {k} is missing").into()),
        }
    }

    /// A constant input, `None` if it is left out.
    pub fn optional_constant(&self, k: usize) -> Result<Option<&Constant>, Refusal> {
        match self.inputs.get(k) {
            Some(Some(Slot::Constant(constant))) => Ok(Some(constant)),
            Some(Some(_)) => Err(Refusal::new(
                format!("input {k} (`{}`) is computed from the model's input", self.node.input[k]),
                "it must be constant: freeze it when exporting",
            )),
            _ => Ok(None),
        }
    }

    pub fn constant(&self, k: usize) -> Result<&Constant, Refusal> {
        self.optional_constant(k)?.ok_or_else(|| format!("input {k} is missing").into())
    }

    /// The node as `fold` sees it: activations count as left out.
    pub fn operands(&self) -> Operands<'_> {
        let inputs = self.inputs.iter().map(|slot| match slot {
            Some(Slot::Constant(constant)) => Some(&**constant),
            _ => None,
        });
        Operands {
            op: &self.node.op_type,
            opset: self.opset,
            attributes: self.attributes(),
            inputs: inputs.collect(),
        }
    }
}

/// The graph that grows.
pub struct Builder<'a> {
    pub graph: Graph,
    pub uses: HashMap<&'a str, usize>,
    slots: HashMap<&'a str, Slot>,
    names: HashSet<String>,
    blockers: Vec<Blocker>,
    pub budget: Budget,
    external: Option<&'a Path>,
}

/// Imports a decoded model.
pub fn build(model: &ModelProto, external: Option<&Path>, options: &Options) -> Result<Graph, Error> {
    let proto = model.graph.as_ref().ok_or_else(|| Error::Decode { why: "it holds no graph".into() })?;
    let default = model.opset_import.iter().find(|set| is_default(&set.domain));
    let opset = default.map_or(0, |set| set.version);
    if !(7..=24).contains(&opset) {
        return Err(Error::Opset { found: opset });
    }
    let initializers: HashSet<&str> = proto.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let inputs = proto.input.iter().map(|input| input.name.as_str());
    // An empty name marks an input that is left out; no value may bear it.
    if initializers.contains("") || inputs.clone().any(str::is_empty) {
        return Err(Error::Graph { why: "an input or initializer has no name".into() });
    }
    let order = order(proto, &initializers.iter().copied().chain(inputs).collect())?;
    let mut builder = Builder {
        graph: Graph { name: proto.name.clone(), ..Graph::default() },
        uses: order.uses,
        slots: HashMap::new(),
        names: HashSet::new(),
        blockers: vec![],
        budget: Budget::default(),
        external,
    };
    builder.inputs(proto, &initializers, options)?;
    builder.initializers(proto)?;
    for node in &order.nodes {
        builder.node(node, opset)?;
    }
    if !builder.blockers.is_empty() {
        return Err(Error::Blocked(Blockers(builder.blockers)));
    }
    builder.outputs(proto)?;
    builder.graph.check().map_err(|why| Error::Graph { why })?;
    Ok(builder.graph)
}

fn is_default(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

impl<'a> Builder<'a> {
    /// Graph inputs that are no initializers become values.
    fn inputs(
        &mut self,
        proto: &'a GraphProto,
        initializers: &HashSet<&str>,
        options: &Options,
    ) -> Result<(), Error> {
        let mut open = false;
        for info in proto.input.iter().filter(|info| !initializers.contains(info.name.as_str())) {
            let (shape, symbolic) = input_shape(info, options.batch)?;
            open |= symbolic;
            let id = self.graph.add_value(&info.name, shape);
            let slot = match element_type(info) {
                Ok(()) => Slot::Activation(id),
                Err(why) => {
                    let fix =
                        "export the model with float32 inputs; convert integers before the model".into();
                    let (nodes, op) = (vec![info.name.clone()], "graph input".into());
                    self.blockers.push(Blocker { nodes, op, why, fix });
                    Slot::Unknown { constant: false }
                }
            };
            if self.slots.insert(&info.name, slot).is_some() {
                return Err(Error::Graph { why: format!("input `{}` is given twice", info.name) });
            }
            self.graph.inputs.push(id);
        }
        let fits = self.graph.inputs.iter().all(|id| self.graph.shape(*id).first() == Some(&options.batch));
        if options.batch != 1 && !open && !fits {
            return Err(Error::FixedBatch { batch: options.batch });
        }
        Ok(())
    }

    fn initializers(&mut self, proto: &'a GraphProto) -> Result<(), Error> {
        if !proto.sparse_initializer.is_empty() {
            let name = proto.sparse_initializer[0].values.as_ref().map_or("", |values| &values.name);
            return Err(Error::Initializer {
                name: name.into(),
                why: "sparse tensors are not supported".into(),
            });
        }
        for tensor in proto.initializer.iter().filter(|tensor| self.uses.contains_key(tensor.name.as_str())) {
            let constant = Constant::read(tensor, self.external)?;
            if self.slots.insert(&tensor.name, Slot::Constant(Rc::new(constant))).is_some() {
                return Err(Error::Graph { why: format!("initializer `{}` is given twice", tensor.name) });
            }
        }
        Ok(())
    }

    /// Folds or translates one node.
    fn node(&mut self, node: &'a NodeProto, opset: i64) -> Result<(), Error> {
        let inputs: Vec<Option<Slot>> =
            node.input.iter().map(|name| self.slots.get(name.as_str()).cloned()).collect();
        let first = node.output.first().map_or("", String::as_str);
        let name = if node.name.is_empty() { format!("{}_{first}", node.op_type) } else { node.name.clone() };
        let call = Call { node, name, opset, inputs };
        let unknown = |constant| Slot::Unknown { constant };
        let slot = if node.op_type == "Constant" && is_default(&node.domain) {
            Ok(Slot::Constant(Rc::new(self.constant_node(&call)?)))
        } else if !is_default(&node.domain) {
            Err(Refusal::new(
                format!("belongs to domain `{}`", node.domain),
                "export with operators of the default domain only (inline functions, no custom operators)",
            ))
        } else if call.inputs.iter().any(|slot| matches!(slot, Some(Slot::Unknown { constant: true }))) {
            Ok(unknown(true))
        } else if call.inputs.iter().any(|slot| matches!(slot, Some(Slot::Unknown { .. })))
            && operators::is_translated(&node.op_type)
        {
            Ok(unknown(false))
        } else if call.inputs.iter().flatten().all(|slot| matches!(slot, Slot::Constant(_))) {
            match fold::fold(&call.operands(), &mut self.budget) {
                Some(result) => {
                    result.map(|constant| Slot::Constant(Rc::new(constant))).map_err(Refusal::from)
                }
                None => Err(operators::unsupported(&node.op_type, true)),
            }
        } else {
            operators::translate(self, &call)
        };
        let slot = slot.and_then(|slot| self.single_output(&call).map(|()| slot)).unwrap_or_else(|refusal| {
            self.block(&call, refusal);
            match call.inputs.first() {
                Some(Some(Slot::Activation(x))) if operators::keeps_shape(&node.op_type) => {
                    Slot::Activation(*x)
                }
                _ => unknown(call.inputs.iter().flatten().all(|slot| matches!(slot, Slot::Constant(_)))),
            }
        });
        for (k, name) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            self.slots.insert(name, if k == 0 { slot.clone() } else { unknown(false) });
        }
        Ok(())
    }

    /// Refuses nodes of which anything but the first output is read.
    fn single_output(&self, call: &Call) -> Result<(), Refusal> {
        let used = call.node.output.iter().skip(1).find(|name| self.uses.contains_key(name.as_str()));
        match used {
            Some(name) => Err(Refusal::new(
                format!("its further output `{name}` is read"),
                "export for inference, so that only the first output is used",
            )),
            None => Ok(()),
        }
    }

    /// A `Constant` node, whose value stands in one of several attributes.
    fn constant_node(&self, call: &Call) -> Result<Constant, Error> {
        let attributes = call.attributes();
        let fail = |why: String| Error::Initializer { name: call.name.clone(), why };
        if let Some(proto) = attributes.tensor("value").map_err(fail)? {
            let mut proto = proto.clone();
            proto.name.clone_from(&call.name);
            return Constant::read(&proto, self.external);
        }
        if let Some(list) = attributes.ints("value_ints").map_err(fail)? {
            return Ok(Constant::integers(DType::I64, vec![list.len()], list.iter().copied()));
        }
        if let Some(list) = attributes.floats("value_floats").map_err(fail)? {
            return Ok(Constant::floats(DType::F32, vec![list.len()], list.iter().map(|x| f64::from(*x))));
        }
        if attributes.has("value_int") {
            return Ok(Constant::integers(
                DType::I64,
                vec![],
                [attributes.int("value_int", 0).map_err(fail)?],
            ));
        }
        if attributes.has("value_float") {
            let value = attributes.float("value_float", 0.0).map_err(fail)?;
            return Ok(Constant::floats(DType::F32, vec![], [f64::from(value)]));
        }
        Err(fail("the constant holds no numbers (texts and sparse tensors are not supported)".into()))
    }

    fn block(&mut self, call: &Call, refusal: Refusal) {
        let Refusal { why, fix } = refusal;
        let op = &call.node.op_type;
        let same = |known: &&mut Blocker| known.op == *op && known.why == why && known.fix == fix;
        match self.blockers.iter_mut().find(same) {
            Some(known) => known.nodes.push(call.name.clone()),
            None => self.blockers.push(Blocker { nodes: vec![call.name.clone()], op: op.clone(), why, fix }),
        }
    }

    /// Adds a node whose result is called `value`; computes the shape.
    pub fn push(&mut self, name: &str, op: Op, inputs: &[ValueId], value: &str) -> Result<ValueId, Refusal> {
        let shapes: Vec<&[usize]> = inputs.iter().map(|id| self.graph.shape(*id)).collect();
        let shape = op.output_shape(&shapes)?;
        if shape::elements(&shape)? == 0 {
            return Err(format!("gives a zero-sized tensor {shape:?}").into());
        }
        let mut unique = name.to_string();
        let mut k = 1;
        while !self.names.insert(unique.clone()) {
            k += 1;
            unique = format!("{name}_{k}");
        }
        let output = self.graph.add_value(value, shape);
        self.graph.nodes.push(Node { name: unique, op, inputs: inputs.to_vec(), output });
        Ok(output)
    }

    /// Names the graph outputs and compares their declared shapes.
    fn outputs(&mut self, proto: &'a GraphProto) -> Result<(), Error> {
        for info in &proto.output {
            let id = match self.slots.get(info.name.as_str()) {
                Some(Slot::Activation(id)) => *id,
                _ => {
                    let why = format!("output `{}` does not depend on any input", info.name);
                    return Err(Error::Graph { why });
                }
            };
            let computed = self.graph.shape(id);
            let declared = info.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref()?.shape.as_ref());
            if let Some(declared) = declared.map(|shape| shape.dim.as_slice()) {
                let fits = |(dim, extent): (&DimensionProto, &usize)| match dim.dim_value {
                    Some(value @ 0..) => value as u64 == *extent as u64,
                    _ => true,
                };
                if declared.len() != computed.len() || !declared.iter().zip(computed).all(fits) {
                    let text: Vec<String> = declared.iter().map(extent_text).collect();
                    return Err(Error::OutputShape {
                        output: info.name.clone(),
                        declared: format!("[{}]", text.join(", ")),
                        computed: computed.to_vec(),
                    });
                }
            }
            if !self.graph.inputs.contains(&id) && !self.graph.outputs.contains(&id) {
                self.graph.values[id.0].name.clone_from(&info.name);
            }
            self.graph.outputs.push(id);
        }
        if self.graph.outputs.is_empty() {
            return Err(Error::Graph { why: "the graph has no output".into() });
        }
        Ok(())
    }
}

fn extent_text(dim: &DimensionProto) -> String {
    match (&dim.dim_value, &dim.dim_param) {
        (Some(value), _) => value.to_string(),
        (None, Some(symbol)) if !symbol.is_empty() => symbol.clone(),
        _ => "?".into(),
    }
}

/// Activations are 32-bit floats, graph inputs included.
fn element_type(info: &ValueInfoProto) -> Result<(), String> {
    let tensor = info.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
    match DType::from_code(tensor.map_or(0, |tensor| i64::from(tensor.elem_type)))? {
        DType::F32 => Ok(()),
        other => Err(format!("is {other:?}, not F32")),
    }
}

/// Static shape of a graph input, and whether its batch axis was open.
fn input_shape(info: &ValueInfoProto, batch: usize) -> Result<(Vec<usize>, bool), Error> {
    let fail = |why: String| Error::Input { input: info.name.clone(), why };
    let tensor = info.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
    let tensor = tensor.ok_or_else(|| fail("is no tensor".into()))?;
    let dims = &tensor.shape.as_ref().ok_or_else(|| fail("has no shape".into()))?.dim;
    let (mut shape, mut symbolic) = (vec![], false);
    for (axis, dim) in dims.iter().enumerate() {
        shape.push(match dim.dim_value {
            Some(0) => {
                let shape = dims.iter().map(|dim| dim.dim_value.unwrap_or(-1)).collect();
                return Err(Error::ZeroSized { name: info.name.clone(), shape });
            }
            Some(value @ 1..) => shape::extent(value).map_err(fail)?,
            _ if axis == 0 => {
                symbolic = true;
                batch
            }
            _ => {
                let (input, extent) = (info.name.clone(), extent_text(dim));
                return Err(Error::DynamicShape { input, axis, extent });
            }
        });
    }
    match shape::elements(&shape) {
        Ok(0) => Err(fail("has a batch of 0".into())),
        Ok(_) => Ok((shape, symbolic)),
        Err(why) => Err(fail(why)),
    }
}
