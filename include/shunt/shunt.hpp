#pragma once
/// Table of contents, in the order in which a token meets them. `nn/` is apart: it stands beside.
#include "shunt/core/version.hpp"  // SHUNT_VERSION
//
#include "shunt/core/arena.hpp"    // the caller's scratch
#include "shunt/core/numeric.hpp"  // float, bf16, fp16, fp8 storage
#include "shunt/core/policy.hpp"   // on_host
#include "shunt/core/status.hpp"   // errors are sentences
#include "shunt/core/view.hpp"     // arrays of the caller's
//
#include "shunt/combine.hpp"   // rows → tokens, weighted by the gates
#include "shunt/counter.hpp"   // numbers that a captured graph advances
#include "shunt/dispatch.hpp"  // ids → plan, tokens → rows in expert order
#include "shunt/experts.hpp"   // grouped products, activations, packed weights
#include "shunt/layer.hpp"     // all of them in sequence, forward and backward
#include "shunt/route.hpp"     // logits → expert ids and gates
#include "shunt/stats.hpp"     // how the load fell
