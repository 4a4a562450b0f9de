//! The expressions. They are matched against folded text ([`super::text`]): no spaces, no accents, lower case; they are
//! folded in the same way before they are compiled, so each is written in its own script.

use std::sync::LazyLock;

use regex::Regex;

use super::Rule;
use super::text::fold;

/// What is said in words, in the order in which it is looked for.
pub(super) static PHRASES: LazyLock<Vec<(Rule, Regex)>> = LazyLock::new(|| {
    compile(&[
        (Rule::SetsAsideInstructions, SETS_ASIDE),
        (Rule::GivesNewRole, NEW_ROLE),
        (Rule::AsksForPrompt, PROMPT),
        (Rule::DictatesVerdict, VERDICT),
        (Rule::LeavesItsFence, FENCE_IN_WORDS),
    ])
});

/// What is said in marks.
pub(super) static MARKS: LazyLock<Vec<(Rule, Regex)>> =
    LazyLock::new(|| compile(&[(Rule::ImitatesConversation, CONVERSATION), (Rule::LeavesItsFence, FENCE)]));

/// One expression of all that a rule has. One that does not compile is left out: a test compiles all of them.
fn compile(rules: &[(Rule, &[&str])]) -> Vec<(Rule, Regex)> {
    let compiled = rules.iter().map(|(rule, expressions)| (*rule, Regex::new(&any_of(expressions))));
    compiled.filter_map(|(rule, expression)| Some((rule, expression.ok()?))).collect()
}

fn any_of(expressions: &[&str]) -> String {
    let mut folded = String::new();
    for (place, expression) in expressions.iter().enumerate() {
        folded.push_str(if place == 0 { "(?:" } else { ")|(?:" });
        expression.chars().for_each(|character| fold(character, &mut |part| folded.push(part)));
    }
    folded.push(')');
    folded
}

const SETS_ASIDE: &[&str] = &[
    // English
    "(ignore|disregard|forget|override|bypass|neglect)(all|any|every|of|the|your|my|these|those|this|please|and|completely|entirely)*(previous|prior|above|earlier|preceding|foregoing|initial|original|existing|former)(set|of|and|system|the|your|given|grading|judging|evaluation)*(instruction|direction|prompt|rule|guideline|directive|command|order|message|context|criteria|rubric|constraint)",
    "(ignore|disregard|override|forget)(all|of)*(your|the|this)(grading|judging|evaluation|scoring)*(rubric|systemprompt|systemmessage|criteria)",
    "(ignore|disregard|override|forget)(all|any)(of)?(the|your|these|those)?(instructions|guidelines)",
    "(ignore|disregard|override|forget)your(initial|original|own|core)*(instructions|guidelines|rules|training|programming)",
    "(ignore|disregard|forget)(everything|allthat|anything)(that)?(was|is|you|were|have|been|we|i|ve)*(said|told|written|stated|above|before|previously|instructed)",
    "(instructions|prompts|rules|messages)(given)?(above|before|sofar)(are|were)(void|invalid|obsolete|cancelled|canceled|nolongervalid|atest|afake)",
    // Chinese
    "(忽略|无视|無視|忘记|忘記|忘掉|不要理会|不要理會|不理会|跳过|跳過)(掉|所有|全部|一切|你|您|的|任何|原有|这些|那些|這些|那些)*(之前|以前|先前|上面|上述|以上|前面|此前|系统|系統|所有|全部)(的|所有|全部|给出|給出|一切|任何)*(指令|指示|提示|说明|說明|命令|规则|規則|要求|内容|內容)",
    // Spanish
    "(ignora|ignore|ignorad|ignoren|ignorar|olvida|olvide|olviden|olvidar|descarta|descarte|omite|omita|desestima|desatiende)(todas|todos|toda|todo|las|los|tus|sus|cualquier|de|porcompleto|porfavor)*(instrucciones|indicaciones|reglas|órdenes|directrices|mensajes)(que|te|dieron|dadas|del|sistema|de|la)*(anterior|previa|previo|precedente|arriba|delsistema)",
    "(ignora|ignore|olvida|olvide|descarta|descarte)(todas|todos|las|los|tus|sus)*(anteriores|previas|precedentes)(instrucciones|indicaciones|reglas|órdenes|directrices)",
    // French
    "(ignore|ignorez|ignorer|oublie|oubliez|oublier|négligez|netienspascompte|netenezpascompte)(toutes|tous|les|tes|vos|des|de|ces|complètement)*(instructions|consignes|règles|directives|ordres|messages)(qui|ont|été|données|du|système)*(précédent|antérieur|cidessus|plushaut|dusystème)",
    "(ignore|ignorez|oublie|oubliez)(toutes|tous|les|tes|vos)*(précédentes|antérieures)(instructions|consignes|règles|directives)",
    // German
    "(ignoriere|ignorieren|ignorier|missachte|missachten|vergiss|vergiß|vergesst|vergesse|vergessen|überspringe|überspringen|beachte|beachten)(sie|bitte|alle|allen|die|deine|deiner|ihre|sämtliche|jegliche|nicht|vollständig)*(vorherig|bisherig|vorangegangen|vorig|früher|obig|vorstehend|vorhergehend|ursprünglich)(e|en|er)*(anweisung|instruktion|regel|vorgabe|befehl|anleitung|nachricht|systemanweisung|prompt)",
    // Russian
    "(игнорируй|игнорируйте|проигнорируй|проигнорируйте|забудь|забудьте|отбрось|отбросьте|неучитывай|неучитывайте)(все|эти|свои|твои|ваши|любые|пожалуйста|об|про|о)*(предыдущ|прежн|вышеуказан|вышеизложен|приведенныевыше|прошл|ранееданн|системн).{0,20}(инструкц|указан|правил|команд|сообщен|подсказ|промпт)",
    // Japanese
    "(これまで|今まで|以前|前|上記|上|先|すべて|全て|全|従来|システム|与えられた)(の|まで)*(すべて|全て|全)?(の)?(指示|命令|ルール|プロンプト|指令)(を|は|に|全て|すべて)*(無視|忘れ|破棄|従わな)",
    // Portuguese
    "(ignore|ignora|ignorem|ignorar|esqueça|esquece|esquecer|desconsidere|desconsidera|descarte)(todas|todos|as|os|suas|seus|tuas|quaisquer|porfavor|de)*(instruções|orientações|regras|ordens|diretrizes|mensagens)(que|foram|dadas|do|sistema)*(anterior|prévia|precedente|acima|dosistema)",
    "(ignore|ignora|esqueça|desconsidere|descarte)(todas|as|suas)*(anteriores|prévias|precedentes)(instruções|orientações|regras)",
    // Arabic
    "(تجاهل|انس|تجاوز|أهمل)(ي|وا|كل|جميع|كافة)*(التعليمات|الأوامر|التوجيهات|القواعد|الإرشادات|الرسائل)(السابقة|أعلاه|المذكورة|الأصلية|السالفة|السابقه)",
    // Hindi
    "(पिछले|पिछली|पहलेके|पहलेकी|पहले|उपरोक्त|ऊपरके|ऊपर|पूर्व)(सभी|सारे|दिएगए|दियेगये|के|की)*(निर्देश|आदेश|नियम|हिदायत)(को|की|सभी|पर)*(अनदेखा|अनदेखी|नज़रअंदाज़|भूल|उपेक्षा|ध्याननद|ध्यानमत)",
];

const NEW_ROLE: &[&str] = &[
    "youarenow(a|an|the|my|acting|as|in)*.{0,16}(judge|grader|evaluator|oracle|chatbot|languagemodel|aimodel|aiassistant|helpfulassistant|developermode|jailbroken|unrestricted|unfiltered)",
    "youareno(longer|more)(a|an|the|bound|by)*(judge|grader|evaluator|oracle|yourrules|theserules|yourinstructions|theseinstructions|anyrules|therubric|yourguidelines|languagemodel)",
    "(pretendtobe|roleplayas|pretendyouare|pretendthatyouare)(a|an|the)?.{0,16}(judge|grader|evaluator|oracle|languagemodel|aimodel|chatbot)",
    "(noteto|messageto|instructionsto|instructionsfor|attention)(the|any|all)?(grader|evaluator|oracle|languagemodel|aimodel|aijudge|aigrader|aievaluator|aireviewer|aiassistant|llmjudge|llmgrader|automatedgrader|automatedjudge)",
    "(your)?newinstructions(areasfollows|follow|replace|override|forthejudge|forthegrader|fortheoracle)",
    "fromnowonyou(must|will|shall|are|should)(only|always)*(answer|respondwith|replywith|approve|passevery|ignore|giveevery)",
    // Chinese
    "(你现在是|你現在是|从现在开始你是|從現在開始你是|从现在起你是|從現在起你是|假装你是|假裝你是|请扮演|請扮演).{0,10}(评委|評委|裁判|评审|評審|助手|模型|评分员|評分員|评估者)",
    // Spanish
    "(ahoraeres|apartirdeahoraeres|fingeser|fingequeeres|yanoeres)(un|una|el|la)?.{0,16}(juez|evaluador|asistente|modelodelenguaje|calificador|oráculo)",
    // French
    "(tuesmaintenant|vousêtesmaintenant|tuesdésormais|vousêtesdésormais|faissemblantdêtre|tunesplus|vousnêtesplus)(un|une|le|la)?.{0,16}(juge|évaluateur|assistant|modèledelangage|correcteur|oracle|examinateur)",
    // German
    "(dubistjetzt|siesindjetzt|vonnunanbistdu|abjetztbistdu|absofortbistdu|tusoalswärstdu|dubistnichtmehr)(ein|eine|der|die|kein)?.{0,16}(richter|gutachter|bewerter|assistent|sprachmodell|prüfer|orakel)",
    // Russian
    "(теперьты|тытеперь|вытеперь|теперьвы|отнынеты|отныневы|представьчтоты|притворисьчтоты).{0,16}(судья|оценщик|ассистент|языковаямодель|эксперт|оракул|помощник)",
    // Japanese
    "(あなたは今から|今からあなたは|あなたは今|これからあなたは|あなたはこれから).{0,14}(審査員|採点者|評価者|アシスタント|言語モデル|ai)",
    // Portuguese
    "(agoravocêé|vocêagoraé|apartirdeagoravocêé|finjaser|finjaqueé)(um|uma|o|a)?.{0,16}(juiz|avaliador|assistente|modelodelinguagem|oráculo|corretor)",
    // Arabic
    "(أنتالآن|أنتمنالآن|منالآنأنت|تظاهربأنك).{0,12}(حكم|قاض|مقيم|مساعد|نموذج)",
    // Hindi
    "(अबआप|आपअब|अबतुम|तुमअब|अबसेआप).{0,14}(न्यायाधीश|मूल्यांकनकर्ता|सहायक|भाषामॉडल|निर्णायक|परीक्षक)",
];

const PROMPT: &[&str] = &[
    "(reveal|print|show|repeat|output|display|leak|tellme|giveme|writeout|quote)(me|us|all|of|the|your|full|entire|complete|exact|whole|hidden|secret|initial|original)*(systemprompt|systemmessage|systeminstruction|hiddenprompt|secretprompt|initialprompt|promptabove|instructionsabove|gradinginstructions)",
    "(your|the)?(new|updated|revised)systempromptis",
    "systemprompt(override|overridden|update|replacedby)",
    "(显示|顯示|输出|輸出|告诉我|告訴我|泄露|洩露|重复|重複|打印|透露)(你|您|的|完整|全部|所有|一下)*(系统提示|系統提示|系统指令|系統指令|系统消息|初始提示)",
    "(muestra|muéstrame|revela|imprime|repite|dime|escribe)(me|tu|el|la|los|tus|completo|todo)*(promptdelsistema|promptdesistema|mensajedelsistema|instruccionesdelsistema|instruccionesdesistema)",
    "(affiche|affichez|montre|montrez|révèle|révélez|répète|répétez|donne|donnez)(moi|ton|votre|le|la|les|tes|vos|du)*(promptsystème|messagesystème|invitesystème|instructionssystème|instructionsdusystème)",
    "(zeige|zeig|zeigen|gib|nenne|nennen|verrate|verraten|wiederhole|wiederholen)(mir|uns|sie|bitte|deinen|deine|den|die|ihren|ihre|vollständigen|kompletten)*(systemprompt|systemnachricht|systemanweisung)",
    "(покажи|выведи|повтори|раскрой|напечатай|сообщи)(те|мне|свой|твой|ваш|полный|весь|свои)*(системныйпромпт|системноесообщение|системнуюинструкцию|системныеинструкции|системнуюподсказку)",
    "(システムプロンプト|システムメッセージ|システム指示)(の|全文|内容|を|すべて|全て)*(表示して|出力して|教えて|見せて|公開して|明かして|表示せよ|出力せよ)",
    "(mostre|revele|imprima|repita|exiba|diga)(me|seu|o|a|as|suas|completo|todo)*(promptdosistema|promptdesistema|mensagemdosistema|instruçõesdosistema)",
    "(أظهر|اعرض|اطبع|اكشف|كرر)(لي|عن|ال)*(موجهالنظام|تعليماتالنظام|رسالةالنظام)",
    "(सिस्टमप्रॉम्प्ट|सिस्टमसंदेश|सिस्टमनिर्देश)(को|की|का|पूरा)*(दिखाओ|दिखाएं|दिखाइए|बताओ|बताएं|बताइए|प्रकट|लिखो|छापो)",
];

const VERDICT: &[&str] = &[
    // English
    "(give|assign|award|grant|respondwith|replywith|answerwith)(it|this|me|that|the|my|a|an|submission|work|answer|solution|job|them|us|only|exactly|just|final|overall)*(score|grade|rating|mark)s?(of|to|as|is|at|equal)*(100|1010|10outof10|hundred|full|perfect|maximum)",
    "(give|award|assign|grant)(it|this|me|the|my|submission|work|answer|solution|a|an)*(full|perfect|maximum|max|highest|top)(possible)?(score|marks|grade|points|rating)",
    "(approve|accept|pass)(this|my)(submission|answer|solution|entry)",
    "(mark|grade|rate|score|evaluate|judge|classify|label|treat)(this|my|the)(submission|work|answer|solution|response)as(a)?(pass|passed|passing|correct|approved|accepted|perfect|valid|complete|excellent|flawless)",
    "(this|my|the)(submission|answer|solution)(must|should|hasto|needsto|shall|willbe)(be)?(approved|accepted|markedas|scored|gradedas|ratedas|passedwith|giventhe|givena|awarded)",
    "the(judge|oracle|grader|evaluator)(must|should|hasto|needsto|shall|will)(always|now|only|immediately|just)*(approve|pass|accept|givefull|giveafull|giveaperfect|award)",
    "verdict(is|mustbe|shouldbe)?(pass|passed|approved|accepted)(with)?(a)?(score)?(is|of)?100",
    // Chinese
    "(给|給|打|评|評|授予)(我|这个|這個|该|該|本|此|这份|這份|提交|作品|答案|的|出|予|个|個|上|一个|一個)*(满分|滿分|100分|一百分|最高分)",
    "(批准|通过|通過|接受)(这个|這個|这份|這份|此|本|该|該|我的)(提交|作品|答案|方案|答卷)",
    "(判定|判|标记|標記|评定|評定)(为|為|成)(通过|通過|合格|满分|滿分)",
    // Spanish
    "(dale|dame|da|asigna|asígnale|otorga|otórgale|pon|ponle|concede)(a|esta|este|mi|la|el|entrega|respuesta|trabajo|una|un|le|me)*(puntuación|nota|calificación|puntaje)(de|del|la|más)*(100|máxima|perfecta|completa|alta|cien)",
    "(dale|dame|da|asigna|otorga|pon|ponle)(a|esta|este|mi|la|el|entrega|respuesta|trabajo|una|un|le|me)*(máxima|perfecta)(puntuación|nota|calificación)",
    "(aprueba|acepta|apruebe|acepte)(esta|mi|este)(entrega|respuesta|envío|solución)",
    // French
    "(donne|donnez|attribue|attribuez|accorde|accordez|mets|mettez)(lui|moi|à|cette|ce|ma|la|le|un|une|soumission|réponse|copie|travail)*(note|score|notation)(de|du|la)*(100|maximal|parfait|complet|cent)",
    "(approuve|approuvez|accepte|acceptez|valide|validez)(cette|ma|ce)(soumission|réponse|solution|copie)",
    // German
    "(gib|geben|vergib|vergeben|erteile|erteilen|bewerte|bewerten)(sie|dieser|diese|der|die|das|dieses|meiner|meine|einreichung|arbeit|lösung|antwort|abgabe|mir|ihr|mit|eine|einen|bitte)*((volle|voller|vollen|maximale|maximaler|höchste|höchster|beste|bester)(punktzahl|bewertung|wertung|note)|100punkt|hundertpunkt|bestnote|punktzahlvon100|punktzahl100)",
    "(genehmige|genehmigen|akzeptiere|akzeptieren|bestätige|bestätigen)(sie|bitte)*(diese|meine)(einreichung|lösung|antwort|abgabe)",
    // Russian
    "(поставь|поставьте|дай|дайте|присвой|присвойте|выставь|выставьте)(этой|этому|моей|моему|работе|ответу|решению|мне|ей|ему|за|оценку)*(100балл|100из100|стобалл|(максимальн|высш|наивысш).{1,3}(балл|оценк))",
    "(одобри|одобрите|прими|примите|зачти|зачтите)(это|эту|этот|мою|мой|мое)(работу|ответ|решение|отправку)",
    // Japanese
    "(満点|100点|百点|最高点)(を|の評価を)?(つけて|付けて|与えて|お願い|にして|くれ|ください|下さい|つけろ|与えよ)",
    "この(提出物|提出|回答|答え|作品|解答)を(合格|承認|受理)(に|と|し|させ)",
    // Portuguese
    "(dê|atribua|conceda|coloque)(a|à|ao|esta|este|minha|meu|essa|submissão|resposta|trabalho|uma|um|me|lhe)*(nota|pontuação|avaliação)(de|a|mais)*(100|máxima|perfeita|completa|alta|cem)",
    "(aprove|aceite)(esta|minha|este|essa)(submissão|resposta|solução|entrega)",
    // Arabic
    "(أعط|امنح)(ي|ني|نا|هذا|هذه|العمل|الإجابة|ه|ها)*(الدرجةالكاملة|درجةكاملة|الدرجةالقصوى|100درجة|درجة100|العلامةالكاملة)",
    "(وافقعلى|اقبل)(هذا|هذه)(العمل|الإجابة|التسليم|الحل)",
    // Hindi
    "(पूरेअंक|पूर्णअंक|100अंक|अधिकतमअंक|सौअंक)(दो|दें|दीजिए|देना)",
    "इस(कार्य|उत्तर|सबमिशन|प्रस्तुति)को(स्वीकृत|स्वीकार|पास|उत्तीर्ण)(करो|करें|कर)",
];

const FENCE_IN_WORDS: &[&str] = &[
    "(end|endof|endofthe)(submission|workerssubmission|untrustedcontent|candidateanswer)(begin|start|now|system|new|instruction|judge|grader|rubric)",
];

const CONVERSATION: &[&str] = &[
    // ChatML and the like.
    r"<\|?(im_start|im_end|im_sep|endoftext|end_of_text|begin_of_text|eot_id|eom_id|start_header_id|end_header_id|endofprompt|start_of_turn|end_of_turn)\|?>",
    r"<\|(system|user|assistant|end|tool|channel|message|start|return)\|>",
    r"<\|(begin|end).of.sentence\|>",
    // Llama's and Mistral's.
    r"\[/?inst\]",
    r"<</?sys>>",
    r"\[/?system_prompt\]",
];

const FENCE: &[&str] = &[
    r"</(submission|submissions|submitted_work|submission_content|candidate_answer|untrusted[a-z_]*|rubric|system_prompt|judge_instructions)>",
    r"(-{3,}|={3,}|#{3,}|`{3,}|<{3,}|>{3,})endof(the)?(submission|rubric|untrusted)",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_expression_compiles() {
        for expressions in [SETS_ASIDE, NEW_ROLE, PROMPT, VERDICT, FENCE_IN_WORDS, CONVERSATION, FENCE] {
            Regex::new(&any_of(expressions)).unwrap();
        }
        assert_eq!((PHRASES.len(), MARKS.len()), (5, 2), "none is left out");
    }
}
