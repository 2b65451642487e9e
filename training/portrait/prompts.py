"""Prompts for sheets: what a person would type, in both languages. Held out: none of them is a training caption."""

from __future__ import annotations

SHEET = (
    "portrait of a young woman with long red hair and green eyes, gentle smile, blue turtleneck, grey background",
    "戴眼镜的长发女孩,蓝色背景",
    "a smiling old man with a white beard, black and white",
    "动漫风格,粉色双马尾少女,微笑,穿白色T恤,樱花背景",
    "oil painting of a man with a brown beard, wearing a black suit and tie, dark background",
    "水彩画,戴红色贝雷帽的年轻女性,金色波波头,黄色背景",
    "young man, short blonde hair, stubble, green hoodie, sunset background, golden hour",
    "赛博朋克霓虹灯光,戴墨镜的男人,紫色背头,城市夜景背景",
    "elderly woman with curly grey hair and round glasses, purple sweater, indoor background, warm light",
    "国风汉服女子,黑色丸子头,微笑,森林背景",
    "a boy laughing, short brown hair, striped yellow t-shirt, beach background",
    "证件照,男性,黑色短发,白衬衫,白色背景,正面",
    "black and white film portrait of a woman with a black bob, hoop earrings, dramatic side light",
    "复古港风,大波浪黑发女人,红色连衣裙,暖光",
    "a man with a moustache wearing a blue wide-brim hat, white shirt, yellow background",
    "戴灰色毛线帽的男生,橙色卫衣,蓝色背景,冷光",
    "woman with a long curly brown hair, big smile, teal dress, pink background, vintage photo",
    "光头大叔,络腮胡,黑色高领毛衣,深色背景,逆光",
    "anime girl with long silver hair, blue eyes, white dress, blue background",
    "中年男性,圆框眼镜,灰色短发,灰色西装领带,影棚灰色背景",
    "watercolour portrait of a woman with a blonde ponytail, pink sweater, white background",
    "油画,戴宽檐帽的女孩,棕色长发,绿色连衣裙,森林背景",
    "young man with glasses, black curly hair, blue shirt, city background at night, neon light",
    "老奶奶,白色短发,微笑,红色毛衣,室内背景,暖光",
)
