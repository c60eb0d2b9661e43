#include "traces/page_parts.h"

const char *const page_style[] = {
    ":root{color-scheme:light dark;--bg:#f6f6f3;--card:#fff;--ink:#1d1e22;--soft:#62666e;"
    "--line:#e2e2dc;--grid:#ededea;--hover:#f3f4f1;--accent:#2b5fb8;--forward:#4a7fc9;"
    "--backward:#e08a3c;--tensor:#cf4f74;--pipeline:#1fa0b4;"
    "--gather:#9a9420;--reduce:#a763b8;--optimizer:#45a07a;--other:#b0b3b8;"
    "--ok:#227a4b;--ok-bg:#e1f2e8;--mid:#7a5a10;--mid-bg:#f8eecd;--bad:#a8321f;--bad-bg:#fbe3dd}\n",
    "@media(prefers-color-scheme:dark){:root{--bg:#121316;--card:#1b1c20;--ink:#e8e8ea;"
    "--soft:#9a9fa8;--line:#303238;--grid:#292b30;--hover:#22242a;--accent:#8bb4f7;"
    "--forward:#6d9fe6;--backward:#e59a58;--tensor:#e27c99;--pipeline:#4cc0d1;"
    "--gather:#c0b84a;--reduce:#bd83cd;--optimizer:#5cb890;--other:#6f737b;"
    "--ok:#7fd3a3;--ok-bg:#1c3528;--mid:#e2c36d;--mid-bg:#383018;--bad:#f19a89;"
    "--bad-bg:#45231d}}\n",
    "*{box-sizing:border-box}\n",
    "body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"
    "\"Segoe UI\",Roboto,\"Helvetica Neue\",Arial,\"DejaVu Sans\",sans-serif;"
    "-webkit-text-size-adjust:100%}\n",
    "main{max-width:1240px;margin:0 auto;padding:36px 24px 56px}\n",
    "header{display:flex;flex-wrap:wrap;gap:4px 16px;align-items:baseline;margin-bottom:22px}\n",
    "h1{font-size:26px;line-height:1.25;letter-spacing:-.015em;margin:0;font-weight:650}\n",
    "h2{font-size:18px;letter-spacing:-.005em;margin:0;font-weight:650}\n",
    "h3{font-size:14px;margin:0 0 2px;font-weight:600;display:flex;flex-wrap:wrap;gap:2px 18px;"
    "align-items:baseline}h3 .key{font-size:13px;font-weight:400;color:var(--soft)}\n",
    "p{margin:2px 0 14px;color:var(--soft);max-width:82ch}\n",
    "header p{margin:0;width:100%;max-width:none;overflow-wrap:anywhere}\n",
    "section{background:var(--card);border:1px solid var(--line);border-radius:12px;"
    "padding:20px 24px 18px;margin-top:18px}\n",
    ".state{font-size:13px;font-weight:600;padding:1px 10px;border-radius:99px;"
    "background:var(--ok-bg);color:var(--ok)}\n",
    ".state.failed{background:var(--bad-bg);color:var(--bad)}\n",
    ".state.interrupted,.state.running{background:var(--mid-bg);color:var(--mid)}\n",
    ".cards{display:grid;grid-template-columns:repeat(3,1fr);gap:14px}\n",
    ".card{background:var(--card);border:1px solid var(--line);border-radius:12px;"
    "padding:14px 20px 14px;display:grid;grid-template:auto 1fr/1fr auto;align-items:end;"
    "gap:7px 14px}\n",
    ".card "
    "h2{grid-column:1/"
    "3;display:flex;gap:6px;align-items:baseline;font-size:13px;font-weight:550;color:var(--soft);"
    "letter-spacing:0}\n",
    ".card h2 small{font-size:12px;font-weight:400;flex:1}\n",
    ".card b{font-size:28px;line-height:1.3;font-weight:620;letter-spacing:-.02em;"
    "font-variant-numeric:tabular-nums;white-space:nowrap}\n",
    ".card b small{font-size:14px;font-weight:500;letter-spacing:0}\n",
    ".card "
    "div{font-size:13px;line-height:1.6;color:var(--soft);text-align:right;white-space:nowrap;"
    "font-variant-numeric:tabular-nums}\n",
    ".card b.absent,td.absent{color:var(--soft);font-weight:400;font-style:italic}\n",
    ".err{display:inline-block;padding:0 7px;border-radius:5px;font-variant-numeric:tabular-nums;"
    "white-space:nowrap}\n",
    ".e0{background:var(--ok-bg);color:var(--ok)}.e1{background:var(--mid-bg);color:var(--mid)}"
    ".e2{background:var(--bad-bg);color:var(--bad)}\n",
    ".tag{display:inline-block;font-size:11px;font-weight:400;line-height:16px;padding:0 "
    "6px;border-radius:4px;"
    "border:1px solid var(--line);color:var(--soft);white-space:nowrap}\n",
    ".tag.measured{border-color:transparent;background:var(--ok-bg);color:var(--ok)}"
    ".tag.modelled{border-style:dashed}.tag.absent{border-color:transparent;font-style:italic}\n",
    "dl{display:grid;grid-template-columns:repeat(2,1fr);gap:10px 26px;"
    "margin:4px 0}dl .wide{grid-column:1/3}\n",
    "dt{font-size:12.5px;color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}\n",
    ".two{display:grid;grid-template-columns:1fr 1fr;gap:18px 36px}\n",
    ".three{display:grid;grid-template-columns:repeat(auto-fit,minmax(280px,1fr));gap:14px 30px}"
    ".two>div,.three>div{min-width:0}\n",
    ".keys{display:flex;flex-wrap:wrap;gap:2px 18px;font-size:13px;color:var(--soft);"
    "margin:4px 0 2px}\n",
    ".key{white-space:nowrap}\n",
    ".key::before{content:\"\";display:inline-block;width:11px;height:11px;border-radius:3px;"
    "margin-right:6px;background:var(--c);vertical-align:-1px}\n",
    ".key.line::before,.key.dash::before{height:0;width:16px;border-radius:0;background:none;"
    "border-top:2px solid var(--c);vertical-align:4px}.key.dash::before{border-top-style:dashed}\n",
    ".key.soft::before{opacity:.4}.key.hollow::before{background:none;border:1.5px solid "
    "var(--c)}.key.dot::before{border-radius:50%;width:8px;height:8px;vertical-align:1px}\n",
    ".forward{--c:var(--forward)}.backward{--c:var(--backward)}.tensor{--c:var(--tensor)}"
    ".pipeline{--c:var(--pipeline)}.gather{--c:var(--gather)}.reduce{--c:var(--reduce)}"
    ".optimizer{--c:var(--optimizer)}.other{--c:var(--other)}.accent{--c:var(--accent)}"
    ".warm{--c:var(--backward)}.bad{--c:var(--bad)}.ink{--c:var(--soft)}"
    ".track{--c:var(--grid)}\n",
    ".m0{--c:#41618f}.m1{--c:#6d8fbf}.m2{--c:#a3bddd}.m3{--c:var(--backward)}.m4{--c:#d8be5c}"
    ".m5{--c:var(--other)}\n",
    ".plot{padding:30px 14px 44px 54px}.plot svg,.row svg{display:block;overflow:visible}\n",
    "svg text{font-size:12px;fill:var(--soft);font-variant-numeric:tabular-nums}\n",
    "svg .title{font-size:12px}.grid{stroke:var(--grid)}.base,.tick{stroke:var(--line)}\n",
    "path{vector-effect:non-scaling-stroke;fill:none;stroke:var(--c);stroke-width:1.8;"
    "stroke-linejoin:round;stroke-linecap:round}\n",
    "path.thin{stroke-width:1;opacity:.45}path.fine{stroke-width:1.1}path.area{fill:var(--c);fill-"
    "opacity:.16}\n",
    ".level{stroke:var(--c);stroke-width:1.5;stroke-dasharray:5 4}\n",
    "circle{fill:var(--c);stroke:var(--card);stroke-width:1}\n",
    "rect{fill:var(--c)}rect.hollow{fill:var(--c);fill-opacity:.12;stroke:var(--c);"
    "stroke-opacity:.9}\n",
    ".time rect{stroke:var(--card);stroke-width:.6}.time rect.odd{opacity:.72}"
    ".time rect:hover{opacity:.55}.time rect.bare{stroke:none}"
    ".time rect.veil{fill:var(--card);opacity:.62;stroke:none;pointer-events:none}\n",
    "rect.hidden{opacity:.32}.time "
    "text.batch{fill:var(--ink);paint-order:stroke;stroke:var(--card);stroke-width:2.5px;stroke-"
    "linejoin:round;font-size:11px;font-weight:600;"
    "pointer-events:none}.time text.stage{fill:var(--ink);font-weight:600}\n",
    "tr.part td{color:var(--soft);border-bottom:none;padding-top:1px;padding-bottom:1px}"
    "tr.part td:first-child{padding-left:18px}\n",
    ".time text.rank{fill:var(--ink)}.whisker{stroke:var(--ink);stroke-width:1.2}\n",
    ".scroll{overflow-x:auto;margin:0 -24px;padding:0 24px}\n",
    "table{border-collapse:collapse;width:100%;font-size:13.5px;"
    "font-variant-numeric:tabular-nums}\n",
    "th{font-weight:500;font-size:12.5px;color:var(--soft);text-align:right;padding:4px 6px;"
    "border-bottom:1px solid var(--line);white-space:nowrap;vertical-align:bottom}\n",
    "th.group{text-align:center;border-bottom:none;padding-bottom:0;color:var(--ink)}\n",
    "td{text-align:right;padding:4px 6px;border-bottom:1px solid var(--grid);white-space:nowrap}\n",
    "tbody tr:hover{background:var(--hover)}tbody tr:last-child td{border-bottom:none}\n",
    "th:first-child,td:first-child,td.left,th.left{text-align:left}"
    "th:first-child,td:first-child{padding-left:0}\n",
    "td.bars{width:36%;min-width:180px;padding-right:20px}tr.sum td{font-weight:600;"
    "border-top:1px solid var(--line)}\n",
    "details{margin-top:8px}summary{cursor:pointer;color:var(--soft);font-size:13.5px}\n",
    ".legend dl{display:grid;grid-template-columns:minmax(110px,max-content) 1fr;gap:4px "
    "20px;font-size:13.5px}"
    ".legend dt{font-size:13.5px}\n",
    "footer{margin-top:22px;font-size:12.5px;color:var(--soft);overflow-wrap:anywhere}\n",
    "@media(max-width:760px){main{padding:20px 12px 40px}section{padding:16px 14px 12px;"
    "border-radius:10px}.scroll{margin:0 -14px;padding:0 14px}.two{grid-template-columns:1fr}"
    ".cards{grid-template-columns:1fr;gap:10px}.card{padding:11px 16px}"
    ".card "
    "b{font-size:24px}.plot{padding-right:10px}td.bars{min-width:96px;padding-right:8px}h1{font-"
    "size:22px}}\n",
    "@media print{body{background:#fff}section,.card{break-inside:avoid}}\n",
    NULL,
};
