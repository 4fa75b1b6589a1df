# In LLVM's intermediate code, or in PTX, the additions and subtractions that a product feeds: "FUNCTION COUNT", or
# with -v lines=1 "FUNCTION LINE" for each (of LLVM's, compiled with -g1). PTX of explicit rounding is not fused.
/^define / {
  name = $0
  sub(/^[^@]*@/, "", name)
  gsub(/\(.*|"/, "", name)
  split("", product)
  next
}
/\.(entry|func) / && !/^ / {
  name = $0
  sub(/\(.*$/, "", name)
  sub(/^.* /, "", name)
  split("", product)
  next
}
/ = fmul / { product[$1] = 1; next }
/ = fneg / {
  for (i = 3; i <= NF; i++) {
    v = $i
    sub(/,$/, "", v)
    if (v in product) product[$1] = 1
  }
  next
}
/ = f(add|sub) / {
  for (i = 4; i <= NF; i++) {
    v = $i
    sub(/,$/, "", v)
    if (!(v in product)) continue
    found($NF)
    next
  }
  next
}
$1 ~ /^(mul|neg|add|sub)\.(ftz\.)?(f16|f16x2|bf16|bf16x2|f32|f64)$/ {
  gsub(/[,;]/, " ")
  if ($1 ~ /^mul/) product[$2] = 1
  else if ($1 ~ /^neg/) { if ($3 in product) product[$2] = 1; else delete product[$2] }
  else { if ($3 in product || $4 in product) found(""); delete product[$2] }
  next
}
/^!/ && lines {
  if (match($0, /line: [0-9]+/)) line[$1] = substr($0, RSTART + 6, RLENGTH - 6)
  if (match($0, /scope: ![0-9]+/)) scope[$1] = substr($0, RSTART + 7, RLENGTH - 7)
  if (match($0, /file: ![0-9]+/)) file[$1] = substr($0, RSTART + 6, RLENGTH - 6)
  if (match($0, /filename: "[^"]*"/)) filename[$1] = substr($0, RSTART + 11, RLENGTH - 12)
}
function found(place) { at[++n] = place; of[n] = name; count[name]++ }
END {
  if (!lines) for (name in count) print name, count[name]
  else for (i = 1; i <= n; i++) print of[i], filename[file[scope[at[i]]]] ":" line[at[i]]
}
