#include "options.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>

#include <cmath>
#include <initializer_list>
#include <string>
#include <string_view>

#include "host_policy.hpp"
#include "maybe.hpp"
#include "shunt/route/presets.hpp"

namespace bindings {
namespace {

/// The enumerator of that name; a ValueError lists those there are.
template <class Enum> struct named {
  Enum value;
  char const* name;
};
template <class Enum>
Enum by_name(char const* what, std::string_view asked, std::initializer_list<named<Enum>> names) {
  std::string all;
  for (auto const& [value, name] : names) {
    if (asked == name) return value;
    all += all.empty() ? "" : ", ";
    all += name;
  }
  throw nb::value_error(
      (std::string(what) + " is '" + std::string(asked) + "'; it must be one of " + all).c_str());
}

shunt::score_kind score_of(std::string_view name) {
  using enum shunt::score_kind;
  return by_name<shunt::score_kind>("route_options.score", name,
                                    {{softmax, "softmax"},
                                     {sigmoid, "sigmoid"},
                                     {sqrt_softplus, "sqrt_softplus"},
                                     {logits, "logits"}});
}
constexpr std::initializer_list<named<shunt::gate_kind>> gate_names = {
    {shunt::gate_kind::raw, "raw"},
    {shunt::gate_kind::renormalized, "renormalized"},
    {shunt::gate_kind::softmax_chosen, "softmax_chosen"}};

char const* name_of(shunt::gate_kind kind) {
  for (auto const& [value, name] : gate_names) {
    if (value == kind) return name;
  }
  return "unknown";
}

shunt::activation_kind kind_of(std::string_view name) {
  std::string all;
  for (int k = 0; k <= static_cast<int>(shunt::activation_kind::situ_glu); ++k) {
    auto const kind = static_cast<shunt::activation_kind>(k);
    if (name == shunt::to_string(kind)) return kind;
    all += all.empty() ? "" : ", ";
    all += shunt::to_string(kind);
  }
  throw nb::value_error(("act is '" + std::string(name) + "'; it must be one of " + all).c_str());
}

float number(char const* what, double given) {
  auto const narrow = static_cast<float>(given);
  if (std::isfinite(narrow)) return narrow;
  throw nb::value_error(
      (std::string(what) + " is " + std::to_string(given) + "; it must be a finite float").c_str());
}

char const* name_of(shunt::balance_kind kind) {
  using enum shunt::balance_kind;
  switch (kind) {
    case none: return "none";
    case auxiliary_loss: return "auxiliary_loss";
    case sign_step: return "sign_step";
    case quantile_step: return "quantile_step";
    case band_loss: return "band_loss";
    case by_experts: return "by_experts";
  }
  return "unknown";
}
char const* name_of(shunt::choice_kind kind) {
  using enum shunt::choice_kind;
  switch (kind) {
    case top_k: return "top_k";
    case hash_first: return "hash_first";
    case expert_choice: return "expert_choice";
  }
  return "unknown";
}

nb::dict described(shunt::route_options const& o) {
  nb::dict d;
  d["score"] = shunt::to_string(o.score);
  d["gates"] = name_of(o.gates);
  d["scale"] = o.scale;
  d["epsilon"] = o.epsilon;
  d["groups"] = o.groups;
  d["top_groups"] = o.top_groups;
  d["group_by"] = o.group_by == shunt::group_rule::best ? "best" : "sum_of_two_best";
  d["jitter"] = o.jitter;
  d["random_second"] = o.random_second;
  d["zero_experts"] = o.zero_experts;
  d["gate_on_input"] = o.gate_on_input;
  return d;
}

nb::dict described(shunt::preset const& p) {
  nb::dict d;
  d["name"] = p.name;
  d["hidden"] = p.sizes.hidden;
  d["intermediate"] = p.sizes.intermediate;
  d["experts"] = p.sizes.experts;
  d["top_k"] = p.sizes.top_k;
  d["route"] = described(p.route);
  d["activation"] = shunt::to_string(p.activation);
  d["activation_limit"] = p.activation_limit;
  d["choice"] = name_of(p.choice);
  d["balance"] = name_of(p.balance);
  d["choice_bias"] = p.choice_bias;
  d["gate_bias"] = p.gate_bias;
  d["expert_biases"] = p.expert_biases;
  d["interleaved"] = p.interleaved;
  d["model_hidden"] = p.model_hidden;
  d["shared_experts"] = p.shared_experts;
  d["shared_intermediate"] = p.shared_intermediate;
  d["shared_gate"] = p.shared_gate;
  d["capacity"] = p.capacity;
  return d;
}

host_policy make_host(int threads, std::string_view isa) {
  if (threads < 0 || threads > 1024) {
    throw nb::value_error(("on_host.threads is " + std::to_string(threads) +
                           "; it must be from 0 (all cores) to 1024")
                              .c_str());
  }
  using enum shunt::isa;
  return {threads, by_name<shunt::isa>("on_host.isa", isa,
                                       {{best, "best"},
                                        {portable, "portable"},
                                        {avx2, "avx2"},
                                        {avx512, "avx512"},
                                        {avx512_vnni, "avx512_vnni"},
                                        {avx512_bf16, "avx512_bf16"},
                                        {amx, "amx"}})};
}

shunt::route_options make_route(std::string_view score, std::string_view gates, double scale,
                                double epsilon, index_t groups, index_t top_groups,
                                std::string_view group_by, double jitter, bool random_second,
                                std::uint64_t seed, std::uint64_t first_token, index_t zero_experts,
                                bool gate_on_input, bool accumulate) {
  shunt::route_options o;
  o.score = score_of(score);
  o.gates = by_name("route_options.gates", gates, gate_names);
  o.scale = number("route_options.scale", scale);
  o.epsilon = number("route_options.epsilon", epsilon);
  o.groups = groups;
  o.top_groups = top_groups;
  o.group_by = by_name<shunt::group_rule>(
      "route_options.group_by", group_by,
      {{shunt::group_rule::best, "best"}, {shunt::group_rule::sum_of_two_best, "sum_of_two_best"}});
  o.jitter = number("route_options.jitter", jitter);
  o.random_second = random_second;
  o.seed = seed;
  o.first_token = first_token;
  o.zero_experts = zero_experts;
  o.gate_on_input = gate_on_input;
  o.accumulate = accumulate;
  return o;
}

layer_settings make_layer(index_t top_k, index_t tokens_per_expert,
                          shunt::route_options const& route, nb::handle act, index_t capacity,
                          std::string_view drop, index_t first_expert, bool zero_experts_here,
                          bool add_to_y, std::string_view memory, bool accumulate,
                          double balance_loss, double z_loss) {
  layer_settings made;
  auto& o = made.options;
  o.top_k = top_k;
  o.tokens_per_expert = tokens_per_expert;
  o.route = route;
  o.act = activation_of(act);
  o.capacity = capacity;
  o.drop = drop_of("layer_options.drop", drop);
  o.first_expert = first_expert;
  o.zero_experts_here = zero_experts_here;
  o.add_to_y = add_to_y;
  o.memory = by_name<shunt::memory_mode>(
      "layer_options.memory", memory,
      {{shunt::memory_mode::save, "save"}, {shunt::memory_mode::recompute, "recompute"}});
  o.accumulate = accumulate;
  o.balance_loss = number("layer_options.balance_loss", balance_loss);
  o.z_loss = number("layer_options.z_loss", z_loss);
  return made;
}

}  // namespace

shunt::drop_policy drop_of(char const* what, std::string_view name) {
  using enum shunt::drop_policy;
  return by_name<shunt::drop_policy>(
      what, name, {{by_position, "by_position"}, {by_choice, "by_choice"}, {by_gate, "by_gate"}});
}

shunt::activation activation_of(nb::handle act) {
  if (nb::isinstance<shunt::activation>(act)) return nb::cast<shunt::activation const&>(act);
  if (nb::isinstance<nb::str>(act)) return {kind_of(nb::cast<std::string_view>(act))};
  throw nb::type_error("act must be a name or a shunt.activation");
}

void bind_options(nb::module_& m) {
  nb::class_<host_policy>(m, "HostPolicy")
      .def("__init__", [](host_policy* self, int threads, std::string_view isa) {
        new (self) host_policy(make_host(threads, isa));
      });
  nb::class_<shunt::activation>(m, "Activation")
      .def("__init__",
           [](shunt::activation* self, std::string_view kind, maybe a, maybe b) {
             new (self) shunt::activation(kind_of(kind));
             if (!a.is_none()) self->a = number("activation.a", nb::cast<double>(a));
             if (!b.is_none()) self->b = number("activation.b", nb::cast<double>(b));
           })
      .def_prop_ro("kind", [](shunt::activation const& a) { return shunt::to_string(a.kind); })
      .def_ro("a", &shunt::activation::a)
      .def_ro("b", &shunt::activation::b);
  nb::class_<shunt::route_options>(m, "RouteOptions");
  m.def("make_route_options", &make_route);
  nb::class_<layer_settings>(m, "LayerSettings");
  m.def("make_layer_options", &make_layer);
  m.def("presets", [] {
    nb::list all;
    for (shunt::preset const* p : shunt::presets::all) all.append(described(*p));
    return all;
  });
}

}  // namespace bindings
