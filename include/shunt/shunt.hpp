#pragma once
/// All of it, in the order in which a token meets the parts. `nn/` (attention, blocks, a model) and across.hpp are not
/// included.
#include "shunt/core/version.hpp"  // SHUNT_VERSION
//
#include "shunt/core/arena.hpp"    // the caller's scratch
#include "shunt/core/numeric.hpp"  // float, bf16, fp16, fp8 storage
#include "shunt/core/policy.hpp"   // on_host
#include "shunt/core/status.hpp"   // errors are sentences
#include "shunt/core/view.hpp"     // arrays of the caller
// clang-format off: the order is the reader's
#include "shunt/gate_projection.hpp"      // tokens → logits
#include "shunt/route.hpp"                // logits → expert ids and gates
#include "shunt/route_expert_choice.hpp"  // the other way round: experts choose tokens
#include "shunt/route_losses.hpp"         // balance loss, z-loss
#include "shunt/route_bias.hpp"           // balance without a loss
#include "shunt/dispatch.hpp"             // ids → plan, tokens → rows in expert order
#include "shunt/experts.hpp"              // grouped products, activations, packed weights
#include "shunt/quantize.hpp"             // int8, fp8, mxfp4, nvfp4 and int4 weights
#include "shunt/pack_int4.hpp"            // int4 as compressed-tensors, GPTQ and AWQ publish it
#include "shunt/combine.hpp"              // rows → tokens, weighted by the gates
#include "shunt/moe_experts.hpp"          // experts for ids and gates of any router
#include "shunt/layer.hpp"                // all of them in sequence, forward and backward
#include "shunt/layer/presets.hpp"        // the options of published layers
#include "shunt/stats.hpp"                // how the load fell
#include "shunt/counter.hpp"              // numbers that a captured graph advances
// clang-format on
