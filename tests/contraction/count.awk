# The multiply-adds of a compiler's assembly: "FUNCTION KIND COUNT", kinds by operation, type and width; with
# -v lines=1 (of code with -g1) "FUNCTION FILE:LINE KIND COUNT".
/^[ \t]*\.file[ \t]+[0-9]+/ { split($0, part, "\""); file[$2] = part[4] != "" ? part[4] : part[2]; next }
/^[^ \t.#\/][^ \t]*:/ { name = $1; sub(/:.*/, "", name); next }
$1 == ".loc" { place = file[$2] ":" $3; next }
$1 ~ /^v?f(n?m(add|sub)|maddsub|msubadd)[0-9]*[ps][sdh]$/ || $1 ~ /^(fn?m(add|sub)|fml[as])$/ {
  kind = $1
  gsub(/132|213|231/, "", kind)  # the order of the operands
  if (/%[xyz]mm/) kind = kind (/%zmm/ ? ".512" : /%ymm/ ? ".256" : ".128")
  else kind = kind ($2 ~ /^v[0-9]+\./ ? substr($2, index($2, ".")) : "." substr($2, 1, 1))  # v0.4s, s0, d0
  sub(/,$/, "", kind)
  count[name " " (lines ? place " " : "") kind]++
}
END { for (key in count) print key, count[key] }
