#pragma once
#include "shunt/core/compiler.hpp"

#include "shunt/across/exchange.hpp"
#include "shunt/across/placement.hpp"
#include "shunt/across/plan.hpp"
#include "shunt/across/rows.hpp"

/// Experts on several ranks: tokens go to where their experts are, and rows come back. A transport is a header of
/// its own: shunt/across/threads.hpp, shunt/across/processes.hpp.
