"""Word banks of the rulebook: plain data, no rules; a bank is one string whose entries are parted by semicolons."""

from typing import NamedTuple


class Field(NamedTuple):
    """A field of knowledge.

    Attributes:
        name: What the field is called.
        words: Lower-case words that tell a text belongs to it.
        topics: Rarer topics, all grammatically singular and with their article, so that they fit any frame.
        questions, explains, lists, plans: Sentence frames with `{t}` for a topic and `{n}` for a small number.
        contexts: Sentences a person might put before a request of this field.
    """

    name: str
    words: str
    topics: str
    questions: str
    explains: str
    lists: str
    plans: str
    contexts: str


FIELDS = (
    Field(
        name="cooking",
        words="""recipe; recipes; cook; cooks; cooking; cooked; bake; baking; baked; bread; cake; pasta; rice; soup;
            salad; dish; dishes; meal; meals; breakfast; lunch; dinner; dessert; snack; snacks; ingredient;
            ingredients; kitchen; sauce; spice; spices; flavor; flavour; cuisine; chef; vegetable; vegetables; fruit;
            fruits; meat; chicken; beef; egg; eggs; cheese; butter; flour; sugar; cocktail; drink; drinks; coffee; tea;
            chocolate; pizza; menu; eat; eating; food; foods; grocery; banana; bananas; burger; sandwich; vegetarian;
            vegan; oven""",
        topics="""injera; mole poblano; kimchi; baklava; ceviche; bouillabaisse; shakshuka; ratatouille; borscht; miso
            soup; cacio e pepe; jollof rice; beef rendang; sourdough rye bread; pavlova; tom yum soup; gravlax; paella
            valenciana; khachapuri; cassoulet; okonomiyaki; clam chowder; mango sticky rice; tarte Tatin; dal makhani;
            pumpkin risotto""",
        questions="""How is {t} traditionally made?; What should I serve with {t}?; Which ingredients of {t} can be
            replaced without spoiling it?; How far ahead can {t} be prepared without losing quality?; How can I make
            {t} without special equipment?; What is the most common mistake when making {t}?; How does {t} differ
            from one region to another?""",
        explains="""Explain how {t} is prepared and served.; Describe the taste and texture of {t}.; Explain what sets
            really good {t} apart from a mediocre version.; Explain to a first-time cook how to make {t}.""",
        lists="""List {n} ingredients that a cook needs for {t}.; Suggest {n} side dishes that go well with {t}.; List
            {n} mistakes to avoid when preparing {t}.; List {n} variations of {t} for different seasons.""",
        plans="""Write a recipe for {t} that serves {n} people.; Plan a dinner menu built around {t}.; Draw up a
            timetable and a shopping list for preparing {t}.; Plan an afternoon class in which {n} beginners learn
            to make {t}.""",
        contexts="""I am cooking for a few friends on Saturday.; My kitchen is small and poorly equipped.; I have never
            made this kind of thing before.; One of my guests does not tolerate lactose.; We want to try something
            new for a family gathering.""",
    ),
    Field(
        name="health",
        words="""health; healthy; disease; diseases; medicine; medicines; medical; doctor; doctors; patient; patients;
            symptom; symptoms; vitamin; vitamins; diet; calories; protein; sleep; sleeping; blood; heart; fever; cough;
            coughing; headache; pain; allergy; allergies; vaccine; vaccines; virus; hospital; nutrition; weight; fat;
            belly; stress; de-stress; injury; skin; lungs; diabetes; cancer; flu; posture; hydration; therapy;
            nurse""",
        topics="""tinnitus; sleep apnea; anemia; plantar fasciitis; lactose intolerance; frostbite; heat exhaustion;
            vertigo; shingles; celiac disease; carpal tunnel syndrome; gout; hay fever; low blood pressure; vitamin D
            deficiency; jet lag; eczema; a sprained ankle; tennis elbow; chronic back pain; dry eye syndrome;
            gestational diabetes; motion sickness; whooping cough""",
        questions="""What are the typical early signs of {t}?; How is {t} usually treated?; When does {t} call for a
            doctor?; What can be done at home to relieve {t}?; How can {t} be prevented?; How long does {t} usually
            last?; What do many people get wrong about {t}?""",
        explains="""Explain how {t} affects the body.; Describe how doctors recognize {t}.; Explain to a worried
            relative what {t} is.; Describe how daily life changes with {t}.""",
        lists="""List {n} warning signs of {t}.; List {n} everyday habits that help against {t}.; Name {n} questions to
            ask a doctor about {t}.; List {n} common myths about {t}.""",
        plans="""Draw up a daily routine for someone who is recovering from {t}.; Plan an information evening about {t}
            at a community center.; Draw up a checklist for a first appointment about {t}.""",
        contexts="""A relative of mine has been unwell for some weeks.; I am preparing a leaflet for a local clinic.; I
            have an appointment next week.; I look after my grandmother at home.; I would like to know what the
            evidence says.""",
    ),
    Field(
        name="history",
        words="""history; historic; historical; historian; historians; war; wars; revolution; empire; empires; king;
            kings; queen; emperor; century; ancient; medieval; dynasty; colony; colonial; treaty; battle; battles;
            pharaoh; civilization; renaissance; soviet; napoleon; rome; roman; romans; viking; vikings; crusade;
            monarchy; independence; slavery; archaeology; castle; knights; pyramids; prehistory""",
        topics="""the Hanseatic League; the Taiping Rebellion; the Peace of Westphalia; the Meiji Restoration; the
            Congress of Vienna; the Children's Crusade; the Haitian Revolution; the Mali Empire; the Great Northern
            War; the Velvet Revolution; the Defenestration of Prague; the Berlin Airlift; the tulip mania of 1637; the
            Ottoman siege of Vienna; the Partition of India; the Boxer Rebellion; the Peasants' Revolt of 1381; the
            Suez Crisis; the Kingdom of Aksum; the Carnation Revolution; the Irish Potato Famine; the Silk Road; the
            Dust Bowl; the Bandung Conference""",
        questions="""How did {t} shape the region around it?; How did ordinary people experience {t}?; What do
            historians still dispute about {t}?; What is the legacy of {t} today?; Who were the most important figures
            in the story of {t}?; Which sources tell us most about {t}?; How is {t} remembered in schoolbooks
            today?""",
        explains="""Explain the historical significance of {t}.; Describe how {t} began.; Describe how {t} came to an
            end.; Explain how {t} fits into the history of its time.""",
        lists="""List {n} key dates connected with {t}.; List {n} people who played a part in the story of {t}.; Name
            {n} lasting effects of {t}.; List {n} objects that an exhibition on {t} could show.""",
        plans="""Plan a small museum exhibition on {t}.; Plan a two-part podcast about {t}.; Draw up a reading plan on
            {t} for a history club.; Plan a walking tour that brings {t} to life.""",
        contexts="""I am writing an article for a local history magazine.; I have to give a short talk next week.; I
            have just visited an exhibition on the subject.; My knowledge of this period is patchy.; I am looking
            for material for a quiz night.""",
    ),
    Field(
        name="animals",
        words="""animal; animals; dog; dogs; cat; cats; bird; birds; horse; horses; whale; whales; insect; insects;
            fish; elephant; lion; tiger; bear; wolf; wolves; snake; snakes; butterfly; bee; bees; ant; ants; mammal;
            mammals; reptile; pet; pets; puppy; kitten; zoo; wildlife; habitat; predator; prey; species; rabbit;
            monkey; shark; dolphin; frog; penguin; penguins; owl; dinosaur; dinosaurs; cow; sheep; livestock""",
        topics="""the axolotl; the mantis shrimp; the pangolin; the aye-aye; the kakapo; the tardigrade; the snow
            leopard; the leafcutter ant; the giant Pacific octopus; the naked mole-rat; the emperor penguin; the okapi;
            the monarch butterfly; the bombardier beetle; the electric eel; the Arctic tern; the vampire bat; the
            platypus; the Komodo dragon; the horseshoe crab; the lyrebird; the saiga antelope; the archerfish; the
            capybara""",
        questions="""How does {t} find its food?; What makes {t} unusual among its relatives?; Where does {t} live?;
            How does {t} protect itself?; How does {t} raise its young?; How threatened is {t} in the wild?; Which
            senses does {t} rely on most?""",
        explains="""Describe a day in the life of {t}.; Explain how {t} is adapted to its surroundings.; Explain how
            researchers study {t} in the wild.; Describe the life cycle of {t}.""",
        lists="""List {n} surprising facts about {t}.; Name {n} threats that {t} faces.; List {n} questions that a
            class could ask a zookeeper about {t}.; List {n} ways in which {t} differs from its relatives.""",
        plans="""Plan a ten-minute documentary about {t}.; Plan a zoo enclosure for {t}.; Draw up a research plan
            for counting {t} in the wild.""",
        contexts="""I volunteer at a small zoo.; My niece is fascinated by unusual creatures.; I am collecting facts
            for a nature trail.; I have seen a documentary on the subject.; I want to write a caption for a photo.""",
    ),
    Field(
        name="biology",
        words="""biology; biological; cell; cells; dna; rna; gene; genes; genetic; genetics; evolution; photosynthesis;
            bacteria; bacterium; organism; organisms; enzyme; enzymes; protein-coding; mitosis; meiosis; plant; plants;
            tree; trees; leaf; leaves; flower; flowers; root; roots; fungus; fungi; brain; muscle; muscles; neuron;
            neurons; immune; digestion; hormone; hormones; mutation; chromosome; microbe; microbes; seedling;
            pollen""",
        topics="""apoptosis; the Krebs cycle; quorum sensing; horizontal gene transfer; RNA interference; the circadian
            clock; epigenetic inheritance; phototropism; the lac operon; mycorrhizal symbiosis; convergent evolution;
            osmoregulation; nitrogen fixation; the nephron; the blood-brain barrier; the lymphatic system; alternative
            splicing; antigenic drift; parthenogenesis; stomatal regulation; the action potential; endosymbiosis;
            genetic drift; bioluminescence""",
        questions="""What role does {t} play in living things?; How was {t} discovered?; What happens when {t} fails?;
            How can {t} be observed in the laboratory?; How does {t} work at the level of molecules?; What remains
            unknown about {t}?; Where in nature can {t} be seen most clearly?""",
        explains="""Explain how {t} works.; Describe the steps of {t} in order.; Explain the biological importance of
            {t}.; Explain {t} to someone who has never studied biology.""",
        lists="""List {n} organisms or tissues in which {t} matters.; List {n} terms that one must know to understand
            {t}.; Name {n} experiments that taught us something about {t}.; List {n} exam questions about {t}.""",
        plans="""Plan a classroom experiment that makes {t} visible.; Draw up a one-week study plan on {t}.; Plan a
            poster on {t} for a science fair.""",
        contexts="""I am revising for a biology exam.; I last studied biology many years ago.; I am preparing a lab
            session.; I need this for a poster at a science fair.; I found a confusing passage about it in a
            textbook.""",
    ),
    Field(
        name="physics",
        words="""physics; gravity; motion; velocity; acceleration; quantum; electricity; magnetism; magnetic; magnet;
            wave; waves; light; sound; heat; temperature; thermodynamics; entropy; energy; momentum; friction;
            pressure; electron; electrons; photon; photons; particle; particles; relativity; laser; optics; newton;
            einstein; voltage; circuit; lens; vibration; nuclear; kinetic; pendulum; buoyancy; color; colors;
            mirror""",
        topics="""the Leidenfrost effect; the Coriolis effect; triboluminescence; superconductivity; the Casimir
            effect; total internal reflection; the Meissner effect; Brownian motion; the photoelectric effect;
            cavitation; quantum tunneling; the Magnus effect; resonance in bridges; the Doppler shift; neutrino
            oscillation; the Mpemba effect; Rayleigh scattering; the gyroscopic effect; Cherenkov radiation; surface
            tension; the Hall effect; standing waves in an organ pipe; time dilation; the piezoelectric effect""",
        questions="""How can {t} be demonstrated with simple equipment?; Where does {t} occur in everyday life?; Which
            technical devices make use of {t}?; How was {t} first observed?; Which quantities must be measured to study
            {t}?; What does {t} tell us about nature?; Under which conditions does {t} occur?""",
        explains="""Explain the physics behind {t}.; Describe an experiment that shows {t}.; Explain {t} without using
            any formula.; Explain what one would observe during {t}.""",
        lists="""List {n} everyday situations that involve {t}.; List {n} quantities that influence {t}.; Name {n}
            technical uses of {t}.; List {n} misconceptions that students have about {t}.""",
        plans="""Plan a classroom demonstration of {t}.; Plan a lab protocol for measuring {t}.; Plan a
            fifteen-minute science show about {t}.""",
        contexts="""I explain science to adults.; I am looking for a safe demonstration.; I have only school physics.;
            I saw a video about it and want to understand it properly.; I am preparing for an oral exam.""",
    ),
    Field(
        name="chemistry",
        words="""chemistry; chemical; chemicals; chemist; atom; atoms; molecule; molecules; acid; acids; base;
            reaction; reactions; element; elements; metal; metals; oxygen; hydrogen; carbon; nitrogen; salt; water;
            solvent; solution; oxidation; rust; catalyst; polymer; plastic; compound; periodic; ion; ions; alkali;
            bleach; soap; combustion; fuel; isotope; alloy; crystal; crystals; detergent""",
        topics="""saponification; fractional distillation; galvanic corrosion; paper chromatography; the thermite
            reaction; titration with an indicator; the Haber process; electroplating; fermentation; aqua regia;
            chirality; the Maillard reaction; polymerization; sublimation of iodine; chemiluminescence; cold
            vulcanization; ion exchange; the Belousov-Zhabotinsky reaction; passivation of steel; sol-gel synthesis;
            the hydrolysis of starch; activated carbon filtration; anodizing; supercritical extraction""",
        questions="""Where is {t} used in industry?; Which safety rules apply to {t}?; Which substances take part in
            {t}?; What conditions does {t} need?; How could a school laboratory demonstrate {t}?; How was {t}
            understood before modern chemistry?; What can go wrong with {t} in practice?""",
        explains="""Explain what happens to the molecules during {t}.; Describe how {t} is carried out.; Explain the
            practical importance of {t}.; Explain {t} to someone who dislikes formulas.""",
        lists="""List {n} products that depend on {t}.; List {n} hazards connected with {t}.; Name {n} factors that
            change the speed or yield of {t}.; List {n} exam questions about {t}.""",
        plans="""Plan a safe school experiment on {t}.; Plan a lab sheet for {t}.; Plan a factory visit that
            focuses on {t}.""",
        contexts="""I am writing a lab report.; I work in a workshop without a fume hood.; I am preparing for an exam
            in general chemistry.; I want to show something striking to a school class.; I read about it on a
            product label.""",
    ),
    Field(
        name="mathematics",
        words="""mathematics; math; maths; mathematical; algebra; geometry; equation; equations; theorem; proof;
            proofs; number; numbers; integer; integers; fraction; fractions; prime; probability; calculus; derivative;
            integral; polynomial; triangle; triangles; circle; matrix; vector; sum; multiply; divide; division;
            multiplication; arithmetic; logarithm; trigonometry; sequence; set; subsets; percentage; angle; angles;
            ratio; square""",
        topics="""the pigeonhole principle; the Monty Hall problem; modular arithmetic; the harmonic series; the golden
            ratio; Pascal's triangle; the Euler characteristic; mathematical induction; the Collatz conjecture; Bayes'
            theorem; the four color theorem; the birthday paradox; continued fractions as approximations; the traveling
            salesman problem; the Chinese remainder theorem; Benford's law; the central limit theorem; Euclid's
            algorithm; the Fibonacci sequence; the inclusion-exclusion principle; the Cantor set; the fundamental
            theorem of algebra; Simpson's rule; the Koch snowflake""",
        questions="""What is the idea behind {t}?; Where is {t} used outside mathematics?; How can {t} be illustrated
            with a drawing?; Which result makes {t} so useful?; How would you prove or justify {t} informally?; What is
            a good first exercise on {t}?; Who first worked on {t}?""",
        explains="""Explain {t} with small numbers.; Explain the main idea of {t}.; Describe a situation from daily
            life in which {t} helps.; Explain {t} to a student who fears formulas.""",
        lists="""List {n} exercises on {t}, from easy to hard.; List {n} practical uses of {t}.; Name {n} ideas that
            one needs before studying {t}.; List {n} typical mistakes that students make with {t}.""",
        plans="""Plan a forty-minute lesson on {t}.; Plan a worksheet on {t} for beginners.; Plan a mathematics
            evening for parents about {t}.""",
        contexts="""I tutor two students in mathematics.; I am looking for an idea for a puzzle column.; I have
            forgotten most of my school algebra.; I need this for a short seminar talk.; I enjoy puzzles but lack
            formal training.""",
    ),
    Field(
        name="programming",
        words="""programming; programmer; programmers; python; javascript; typescript; java; c++; sql; html; css; code;
            coding; software; algorithm; algorithms; function; functions; compiler; debugging; debug; bug; bugs; api;
            regex; linux; git; variable; variables; loop; loops; recursion; array; arrays; string; strings; developer;
            developers; backend; frontend; website; web; server; leetcode; syntax; pointer; cache""",
        topics="""tail recursion; the visitor pattern; a race condition; garbage collection; dependency injection;
            copy-on-write; a bloom filter; memoization; operator precedence; a merge conflict; feature flagging; the
            event loop; a memory leak; lazy evaluation; continuous integration; a trie; optimistic locking;
            property-based testing; semantic versioning; a deadlock; structural pattern matching; rate limiting;
            consistent hashing; a code review""",
        questions="""When is {t} worth the effort of a small team?; How would you explain {t} to a junior developer?;
            How can one recognize {t} in an existing code base?; Which tools help with {t}?; What does {t} look like in
            a small project?; What should a beginner know about {t} before using or facing it?; Which mistakes are
            typical when dealing with {t}?""",
        explains="""Explain {t} with a short piece of pseudocode.; Explain how {t} shows up in real projects.; Describe
            how a team should deal with {t}.; Explain {t} to a designer who does not write code.""",
        lists="""List {n} situations in which {t} matters.; List {n} interview questions about {t}.; Name {n} mistakes
            that developers make with {t}.; List {n} rules of thumb for dealing with {t}.""",
        plans="""Plan a one-hour workshop on {t} for new developers.; Draw up a checklist for dealing with {t}.;
            Plan a lunchtime talk on {t} for a development team.""",
        contexts="""Our team has two developers and an old code base.; I am preparing for a technical interview.; I
            have been writing code for about a year.; I am reviewing a colleague's pull request.; I maintain a
            small open-source tool.""",
    ),
    Field(
        name="data",
        words="""data; dataset; datasets; database; databases; spreadsheet; excel; statistics; statistical; chart;
            charts; graph; graphs; histogram; survey; surveys; mean; median; average; correlation; regression;
            sampling; dashboard; csv; mining; variance; outlier; outliers; visualization; analytics; forecast; query;
            queries; classifier; clustering; respondents""",
        topics="""survivorship bias; Simpson's paradox; a pivot table; data imputation; k-means clustering; a box plot;
            A/B testing; cohort analysis; record linkage; time series decomposition; stratified sampling; differential
            privacy; a slowly changing dimension; data lineage; a confusion matrix; bootstrapping; a star schema;
            schema drift; a Sankey diagram; the multiple comparisons problem; principal component analysis; a control
            chart; anomaly detection; data deduplication""",
        questions="""When is {t} useful in practice?; How would you introduce {t} to a new analyst?; How can {t}
            mislead a reader?; Which checks should go along with {t}?; How does one deal with {t} in a small dataset?;
            What does a good report say about {t}?; Which tools are commonly used for {t}?""",
        explains="""Explain {t} with a small made-up dataset.; Describe how an analyst deals with {t}.; Explain {t} to
            a manager without a technical background.; Explain what can be learned from {t}.""",
        lists="""List {n} pitfalls connected with {t}.; List {n} situations in which {t} matters to an analyst.; Name
            {n} questions to ask before relying on {t}.; List {n} rules of thumb for {t}.""",
        plans="""Plan a half-day training on {t} for analysts.; Draw up a checklist for dealing with {t}.; Plan a
            small study that shows {t} at work.""",
        contexts="""I work with survey results.; I inherited a messy spreadsheet.; Our data comes from three sources.;
            I have to present the findings on Monday.; I have a basic course in statistics behind me.""",
    ),
    Field(
        name="business",
        words="""business; businesses; company; companies; startup; startups; marketing; customer; customers; product;
            products; sales; brand; brands; manager; managers; management; strategy; competitor; competitors;
            advertising; advertisement; entrepreneur; entrepreneurs; retail; shop; store; supplier; suppliers;
            logistics; ceo; pricing; slogan; branding; corporate; corporation; industry; organization; organizations;
            stakeholders; promotion""",
        topics="""the freemium model; vertical integration; just-in-time delivery; a loyalty program; dynamic pricing;
            a franchise agreement; a joint venture; white-label manufacturing; product cannibalization; a product
            recall; the first-mover advantage; crowdfunding; churn analysis; a succession plan; the long tail;
            guerrilla marketing; a minimum viable product; warehouse automation; supplier diversification; a
            subscription box; a hostile takeover; reverse logistics; cause-related marketing; a pop-up store""",
        questions="""When does {t} make sense for a small firm?; What risks come with {t}?; How can a firm measure the
            success of {t}?; Which industries rely most on {t}?; What should a manager clarify before opting for {t}?;
            How do customers usually react to {t}?; How does {t} change the daily work of a team?""",
        explains="""Explain how {t} works in practice.; Describe a successful case of {t}.; Explain {t} to a founder
            with little experience.; Explain what {t} means for customers.""",
        lists="""List {n} risks of {t}.; List {n} questions a founder should ask about {t}.; Name {n} signs that {t} is
            going well.; List {n} firms or sectors known for {t}.""",
        plans="""Draw up a ninety-day plan for introducing {t}.; Plan a workshop on {t} for shop owners.; Draw up a
            checklist for a firm that considers {t}.""",
        contexts="""I run a shop with six employees.; Our sales have been flat for a year.; I am preparing a
            presentation for investors.; We sell mostly online.; I am new to management.""",
    ),
    Field(
        name="personal finance",
        words="""finance; financial; money; budget; budgets; budgeting; bank; banks; banking; loan; loans; mortgage;
            debt; debts; saving; savings; invest; investing; investment; investments; stock; stocks; bond; bonds;
            interest; tax; taxes; inflation; income; salary; pension; retirement; insurance; credit; currency; bitcoin;
            dollar; dollars; wage; wages; rent; fintech; laundering; spending; expenses; economy""",
        topics="""dollar-cost averaging; an emergency fund; an annuity; a reverse mortgage; the debt snowball method;
            an index fund; a credit freeze; zero-based budgeting; compound interest; a balance transfer; an
            adjustable-rate mortgage; a certificate of deposit; microlending; rent-to-own financing; an escrow account;
            tax-loss harvesting; a co-signed loan; a high-yield savings account; peer-to-peer lending; a no-spend
            month; disability insurance; the rule of 72; envelope budgeting; a sinking fund""",
        questions="""When is {t} a sensible choice?; What hidden costs come with {t}?; How does {t} work in practice?;
            Who should stay away from {t}?; How does {t} behave when prices rise quickly?; What should a young couple
            know about {t}?; How do I find out whether {t} suits me?""",
        explains="""Explain how {t} works with a calculated example.; Describe the risks of {t}.; Explain {t} to
            someone with their first job.; Explain what to check before relying on {t}.""",
        lists="""List {n} questions to ask before choosing {t}.; List {n} common mistakes with {t}.; Name {n}
            situations in which {t} helps.; List {n} myths about {t}.""",
        plans="""Draw up a twelve-month savings plan that uses {t}.; Plan a money workshop about {t} for young adults.;
            Draw up a checklist for deciding on {t}.""",
        contexts="""I have just started my first job.; I earn an irregular income.; We are saving for a house.; I have
            a small amount left over every month.; I want to avoid expensive mistakes.""",
    ),
    Field(
        name="travel",
        words="""travel; traveling; travelling; traveler; trip; trips; vacation; holiday; tourist; tourists; tourism;
            flight; flights; airport; hotel; hotels; itinerary; country; countries; city; cities; map; continent;
            capital; island; beach; mountain; mountains; visa; passport; luggage; backpacking; sightseeing; europe;
            asia; africa; paris; london; tokyo; italy; japan; france; spain; geography; population; river; rivers;
            destination; destinations; seattle; cruise; hostel""",
        topics="""Tbilisi; Luang Prabang; the Isle of Skye; Bhutan; Valparaíso; the Okavango Delta; Matera; Tasmania;
            Ljubljana; Oaxaca; Salento; the Lofoten archipelago; Kanazawa; Zanzibar; Patagonia; Samarkand; Cappadocia;
            Nova Scotia; Madeira; Chefchaouen; Gotland; Ohrid; the Atacama Desert; Kerala""",
        questions="""What is the best season for visiting {t}?; What should nobody miss in {t}?; How expensive is a
            week in {t}?; Which local customs should visitors respect in {t}?; How do I get around in {t} without a
            car?; What sets {t} apart from better-known destinations?; Which parts of {t} are suitable for
            families?""",
        explains="""Describe the landscape and climate of {t}.; Describe what a first-time visitor notices in {t}.;
            Explain how tourism has affected {t}.; Describe the local food of {t}.""",
        lists="""List {n} sights in {t} that few tourists see.; Name {n} things to pack for a journey to {t}.; List {n}
            reasons to visit {t}.; List {n} local customs that visitors to {t} should know.""",
        plans="""Plan a five-day trip to {t}.; Plan a weekend in {t} for a family of four.; Draw up a travel budget for
            {n} days in {t}.; Plan a train journey that ends in {t}.""",
        contexts="""I have ten days off in September.; I travel with my parents, who dislike long drives.; I prefer
            small guesthouses to large hotels.; We travel by train whenever possible.; I have already seen the
            famous places.""",
    ),
    Field(
        name="literature",
        words="""literature; literary; novel; novels; poetry; poet; poets; author; authors; fiction; shakespeare;
            narrator; metaphor; metaphors; plot; protagonist; rhyme; verse; fable; fables; myth; mythology; prose;
            novelist; genre; tragedy; satire; folklore; fantasy; potter; memoir; biography; proverb; proverbs; essay;
            essays""",
        topics="""magical realism; the villanelle; the unreliable narrator; the epistolary novel; stream of
            consciousness; the Bildungsroman; the frame story; dramatic irony; the prose poem; Gothic fiction; the
            ghazal; the picaresque novel; the sestina; concrete poetry; the Beat Generation; the creation myth; free
            verse; the locked-room mystery; nonsense verse; the trickster figure; the heroic couplet; climate fiction;
            the campus novel; oral storytelling""",
        questions="""What makes {t} attractive to readers?; Which works are good examples of {t}?; How can a writer use
            {t} well today?; How did {t} come about?; What does {t} demand of its readers?; How would you teach {t} in
            one lesson?; What is often misunderstood about {t}?""",
        explains="""Explain the typical features of {t}.; Describe the effect of {t} on readers.; Explain how {t}
            differs from related forms.; Explain {t} with the help of one well-known work.""",
        lists="""List {n} works that stand for {t}.; List {n} typical features of {t}.; Name {n} tips for writers who
            want to try {t}.; List {n} questions about {t} for a reading group.""",
        plans="""Plan a reading evening devoted to {t}.; Draw up a reading plan for a course on {t}.; Plan a
            writing workshop on {t}.""",
        contexts="""Our reading group meets next week.; I am taking a course in creative writing.; I read a lot but
            never studied literature.; I am writing a review for a blog.; I am looking for something to read aloud.""",
    ),
    Field(
        name="language",
        words="""grammar; grammatical; verb; verbs; noun; nouns; adjective; adjectives; adverb; tense; vocabulary;
            idiom; idioms; synonym; synonyms; antonym; antonyms; spelling; misspelling; punctuation; pronunciation;
            dialect; translation; translate; linguistics; linguistic; english; spanish; french; german; chinese;
            arabic; bilingual; accent; syllable; alphabet; phrase; collocations; preposition; pronoun; nlp; etymology;
            multilingual""",
        topics="""the subjunctive mood; vowel harmony; code-switching; the Oxford comma; grammatical gender; the
            passive voice; ergativity; the tonal system of Mandarin; false friends in translation; language attrition;
            the Great Vowel Shift; reduplication; the Cyrillic alphabet; pidgin formation; the dangling modifier; sign
            language grammar; the phonetic alphabet; hedging in academic writing; the split infinitive; evidentiality;
            register in formal letters; the apostrophe; language revival; the garden-path sentence""",
        questions="""How can {t} be explained to a learner of English?; What makes {t} difficult for learners?; Where
            does {t} come from?; How does {t} affect the way people speak or write?; How do linguists study {t}?; Which
            rules apply to {t}?; What should an editor know about {t}?""",
        explains="""Explain {t} with three short example sentences.; Describe how children come to terms with {t}.;
            Explain {t} to a language learner.; Explain what linguists find interesting about {t}.""",
        lists="""List {n} example sentences that illustrate {t}.; Name {n} typical learner mistakes with {t}.; List {n}
            exercises on {t}.; List {n} facts about {t} that would interest a translator.""",
        plans="""Plan a forty-five-minute lesson on {t}.; Plan a worksheet on {t} for adult learners.; Plan a study
            week that concentrates on {t}.""",
        contexts="""I teach an evening course for adults.; English is my second language.; I am editing a colleague's
            manuscript.; I am learning two languages at once.; I work as a translator.""",
    ),
    Field(
        name="environment",
        words="""environment; environmental; climate; pollution; recycling; recycle; sustainability; sustainable;
            renewable; solar; emissions; deforestation; forest; forests; ocean; oceans; sea; ecosystem; ecosystems;
            conservation; biodiversity; waste; greenhouse; carbon-neutral; warming; wildfire; wildfires; soil; drought;
            flood; nature; compost; landfill; wetlands; rainforest; ecology; ecological; glacier; glaciers""",
        topics="""coral bleaching; peatland restoration; the urban heat island; desertification; a green roof; light
            pollution; the rewilding of farmland; ocean acidification; microplastic pollution; agroforestry; the salmon
            ladder; noise pollution; a carbon tax; mangrove restoration; groundwater depletion; the deposit return
            system; permafrost thaw; invasive knotweed; the rain garden; soil compaction; overtourism; nutrient runoff;
            the circular economy; bycatch in trawl fishing""",
        questions="""How can a town council deal with {t}?; How is {t} measured?; Which regions know {t} best?; What
            can private households learn from {t}?; How costly is {t} over ten years?; Who bears responsibility for
            {t}?; Which species are affected by {t}?""",
        explains="""Explain how {t} comes about and how it is measured.; Describe what {t} means for a coastal or rural
            community.; Explain {t} to a town council.; Describe how scientists study {t}.""",
        lists="""List {n} measures that concern {t}.; List {n} facts about {t} for an information board.; Name {n}
            groups that have a stake in {t}.; List {n} open research questions about {t}.""",
        plans="""Plan a public hearing about {t}.; Plan a school project on {t}.; Plan a citizens' campaign that
            deals with {t}.""",
        contexts="""I sit on a local council.; I am writing a letter to a newspaper.; Our school wants to start a
            project.; I am gathering facts for a neighborhood meeting.; I live near the coast.""",
    ),
    Field(
        name="weather and seasons",
        words="""weather; summer; winter; autumn; spring; rain; snow; storm; storms; thunder; lightning; cloud; clouds;
            wind; winds; hurricane; tornado; fog; rainbow; sunshine; season; seasons; meteorology; sky; ice; frost;
            monsoon; humidity; blizzard; sunset; sunrise""",
        topics="""ball lightning; the polar vortex; hoarfrost; the Indian monsoon; the aurora borealis; a haboob;
            freezing rain; a mackerel sky; the jet stream; a heat dome; a derecho; the Saharan dust layer; a
            waterspout; lake-effect snow; a sun dog; the foehn wind; a microburst; sea smoke; the green flash; a cold
            snap in May; a temperature inversion; Indian summer; a fogbow; graupel""",
        questions="""How does {t} form?; Where on Earth is {t} most often seen?; How do forecasters recognize {t}?; How
            dangerous is {t}?; What folk wisdom exists about {t}?; How should one behave during {t}?; How does {t}
            feel to someone who is caught outside?""",
        explains="""Explain how {t} comes about.; Describe what an observer sees and hears during {t}.; Explain {t} to
            a class of ten-year-olds.; Explain how {t} is forecast.""",
        lists="""List {n} facts about {t}.; List {n} precautions that concern {t}.; Name {n} places where {t} has been
            observed.; List {n} words that capture the mood of {t}.""",
        plans="""Plan a photo excursion to capture {t}.; Plan a short television report on {t}.; Draw up a safety
            plan for a campsite in case of {t}.""",
        contexts="""I keep a weather diary.; I take photographs of the sky.; We are planning a hike.; I saw a strange
            sight from my window last week.; I write a nature column.""",
    ),
    Field(
        name="music",
        words="""music; musical; song; songs; singer; singers; lyrics; melody; guitar; piano; violin; drum; drums;
            orchestra; composer; composers; opera; jazz; band; concert; concerts; rhythm; album; choir; symphony;
            rapper; hip-hop; chord; chords; instrument; instruments; musician; musicians; playlist""",
        topics="""the theremin; throat singing; the twelve-bar blues; gamelan music; the bagpipe; fado; klezmer; the
            fugue; the hurdy-gurdy; bossa nova; sonata form; the kora; flamenco; minimalism in music; the glass
            harmonica; barbershop harmony; the leitmotif; ragtime; the steel drum; polyrhythm; Gregorian chant; the
            whole-tone scale; prepared piano; bluegrass""",
        questions="""What gives {t} its special character?; Where does {t} come from?; How does one learn {t}?; Which
            recordings offer a good introduction to {t}?; How has {t} influenced popular music?; What should a listener
            pay attention to in {t}?; Which musicians are known for {t}?""",
        explains="""Explain what makes {t} recognizable.; Describe the sound of {t} to someone who has never heard it.;
            Explain the place of {t} in the history of music.; Explain how a composer might use {t}.""",
        lists="""List {n} pieces that introduce a listener to {t}.; Name {n} musicians associated with {t}.; List {n}
            questions to ask an expert on {t}.; List {n} features that make {t} unmistakable.""",
        plans="""Plan a school concert that features {t}.; Plan a playlist with notes that introduces {t}.; Plan a
            radio program about {t}.""",
        contexts="""I sing in an amateur choir.; I am putting together a program for a small festival.; I play a little
            but cannot read scores.; I heard it for the first time at a street fair.; I write notes for concert
            programs.""",
    ),
    Field(
        name="visual art",
        words="""art; arts; artist; artists; painting; paintings; painter; sculpture; museum; gallery; drawing;
            drawings; sketch; photography; photo; photograph; photographs; camera; architecture; architect; pottery;
            fashion; fabric; exhibition; mural; portrait; watercolor; graffiti; renaissance-style; canvas""",
        topics="""kintsugi; fresco painting; pointillism; the camera obscura; linocut printing; chiaroscuro; Art
            Nouveau; batik; stained glass; trompe-l'oeil; brutalist architecture; the cyanotype; Islamic calligraphy;
            land art; the still life; marquetry; Japanese woodblock printing; encaustic painting; the self-portrait;
            pop art; raku pottery; the Bauhaus; collage; street photography""",
        questions="""How does an artist work with {t}?; What is striking about {t}?; Which works show {t} at its best?;
            How did contemporaries react to {t}?; What materials are typical of {t}?; How can a beginner get into {t}?;
            Where can one see outstanding examples of {t}?""",
        explains="""Explain the technique or idea behind {t}.; Describe what a viewer should look for in {t}.; Explain
            the place of {t} in the history of art.; Explain {t} to a visitor in a museum.""",
        lists="""List {n} artists connected with {t}.; List {n} materials or tools that {t} calls for.; Name {n}
            features by which one recognizes {t}.; List {n} ideas for a beginner's project in {t}.""",
        plans="""Plan a weekend course on {t}.; Plan a small exhibition devoted to {t}.; Plan a list of steps for a
            first project in {t}.""",
        contexts="""I lead tours in a small museum.; I paint in my spare time.; I am decorating a community center.; I
            am looking for a gift for an artist.; I have no training in art history.""",
    ),
    Field(
        name="film and games",
        words="""movie; movies; film; films; actor; actors; actress; director; cinema; hollywood; television; tv;
            series; episode; episodes; cartoon; anime; manga; netflix; scene; screenplay; comedy; horror; thriller;
            game; games; gaming; chess; puzzle; puzzles; video-game; card; cards; board-game; streaming; trailer;
            celebrity; joke; jokes; comedian""",
        topics="""film noir; stop-motion animation; the silent film; the mockumentary; the spaghetti western; dubbing;
            the board game Go; the tracking shot; speedrunning; the escape room; Foley sound; the text adventure;
            cosmic horror; the director's cut; backgammon; shadow puppetry; the laugh track; mahjong; the cliffhanger;
            the tabletop role-playing game; the movie trailer; the chess endgame; improvised theater; rotoscoping""",
        questions="""What draws people to {t}?; How did {t} become popular?; What should a newcomer know about {t}?;
            Which examples of {t} are worth knowing?; How is {t} made or practiced?; How has technology changed {t}?;
            What is the hardest part of {t}?""",
        explains="""Explain the appeal of {t}.; Describe how {t} developed.; Explain {t} to someone who never cared for
            it.; Explain which skills {t} requires.""",
        lists="""List {n} good ways to get to know {t}.; List {n} features that define {t}.; Name {n} well-known
            examples or masters of {t}.; List {n} discussion questions about {t}.""",
        plans="""Plan an evening for friends around {t}.; Plan a ten-minute video essay on {t}.; Plan a program for
            a small festival devoted to {t}.""",
        contexts="""I host a monthly evening for friends.; I write reviews for a student paper.; I have two hours to
            spare on Sunday.; My nephew wants to try something new.; I am tired of the usual recommendations.""",
    ),
    Field(
        name="sport",
        words="""sport; sports; football; soccer; basketball; tennis; baseball; cricket; hockey; golf; swimming;
            swimmer; running; runner; marathon; cycling; gym; workout; workouts; fitness; exercise; exercises; athlete;
            athletes; coach; coaches; team; teams; tournament; olympic; olympics; referee; league; championship; yoga;
            warmup; stretching; burpees; skiing; boxing; pre-run; training""",
        topics="""curling; biathlon; kabaddi; orienteering; water polo; fencing; sumo wrestling; underwater hockey;
            rhythmic gymnastics; dragon boat racing; the steeplechase; ultimate frisbee; sepak takraw; bouldering; the
            decathlon; track cycling; wheelchair rugby; canoe slalom; squash; Nordic combined; synchronized swimming;
            pétanque; lacrosse; speed skating""",
        questions="""What are the basic rules of {t}?; How does one train for {t}?; What equipment does {t} require?;
            Which injuries are common in {t}?; How is {t} scored or judged?; What makes {t} exciting to watch?; At
            what age should children take up {t}?""",
        explains="""Explain the rules of {t}.; Describe what makes {t} physically demanding.; Explain {t} to a
            spectator who sees it for the first time.; Describe a typical training session in {t}.""",
        lists="""List {n} skills that {t} demands.; List {n} pieces of equipment for {t}.; Name {n} beginner's mistakes
            in {t}.; List {n} exercises that prepare the body for {t}.""",
        plans="""Draw up a four-week training plan for beginners in {t}.; Plan an open day for a club that offers {t}.;
            Plan a ninety-minute training session in {t}.""",
        contexts="""I am in fair shape but new to competition.; I coach children aged eight to ten.; Our club wants to
            offer something unusual.; I train twice a week after work.; I am recovering from a long break.""",
    ),
    Field(
        name="law and civics",
        words="""law; laws; legal; lawyer; lawyers; court; courts; judge; constitution; constitutional; rights; crime;
            criminal; police; government; president; election; elections; vote; voting; voters; democracy; congress;
            senate; parliament; politics; political; politician; policy; policies; citizen; citizens; contract; sue;
            lawsuit; copyright; patent; immigration; regulation; regulations; minister; republican; democrat;
            refund""",
        topics="""habeas corpus; eminent domain; double jeopardy; gerrymandering; the filibuster; jury selection; the
            statute of limitations; small claims court; plea bargaining; ranked-choice voting; judicial review; the
            ombudsman; a class action; the right to be forgotten; fair use; a citizens' assembly; power of attorney;
            the presumption of innocence; whistleblower protection; civil forfeiture; a recall election; common-law
            marriage; squatters' rights as a legal doctrine; mandatory arbitration""",
        questions="""What does {t} mean for an ordinary citizen?; How does {t} work in practice?; Which arguments are
            made against {t}?; How does {t} differ between legal systems?; What is a typical case involving {t}?; What
            limits apply to {t}?; Who decides on questions of {t}?""",
        explains="""Explain {t} in plain language.; Describe a case in which {t} mattered.; Explain the purpose of
            {t}.; Explain how {t} developed over time.""",
        lists="""List {n} arguments for and against {t}.; List {n} terms needed to understand {t}.; Name {n} situations
            in which {t} becomes relevant.; List {n} questions to ask a lawyer about {t}.""",
        plans="""Plan a classroom debate about {t}.; Plan a public information evening on {t}.; Plan a mock trial
            that involves {t}.""",
        contexts="""I am not a lawyer.; I am preparing for a debate.; I read about a case in the newspaper.; I teach
            civics at a secondary school.; I need to understand the principle, not the details.""",
    ),
    Field(
        name="home and craft",
        words="""home; house; household; garden; gardening; furniture; cleaning; clean; laundry; repair; repairing;
            diy; craft; crafts; sewing; knitting; woodworking; plumbing; wall; roof; carpet; bedroom; bathroom; sofa;
            tool; tools; hammer; screwdriver; wheelbarrow; decorate; decorating; declutter; houseplant; houseplants;
            lawn; grill; blender; appliance; appliances; lamp; candle; closet; seeds; door; window; windows""",
        topics="""re-caulking a bathtub; darning a wool sock; pruning an apple tree; building a raised bed; descaling a
            kettle; refinishing an old dresser; patching drywall; sharpening a chisel; bleeding a radiator; making
            beeswax candles; upholstering a stool; unclogging a drain without chemicals; laying a brick path; repotting
            an orchid; soundproofing a bedroom; restoring a cast-iron pan; weaving a basket; hanging wallpaper;
            installing a rain barrel; mending a zipper; oiling a wooden floor; starting a worm bin; insulating an
            attic; binding a notebook by hand""",
        questions="""What tools do I need for {t}?; How long does {t} usually take?; What is the right order of steps
            for {t}?; Which mistakes are common when {t}?; When is {t} better left to a professional?; What materials
            are best for {t}?; How do I keep costs low when {t}?""",
        explains="""Explain to a beginner how to go about {t}.; Describe the preparation that {t} requires.; Explain
            what to watch out for when {t}.; Describe how to check the result after {t}.""",
        lists="""List {n} tools or materials for {t}.; List {n} mistakes to avoid when {t}.; Name {n} signs that it is
            time for {t}.; List {n} safety tips for {t}.""",
        plans="""Plan a weekend project for {t}.; Draw up a schedule and a shopping list for {t}.; Plan a short
            course on {t} for neighbors.""",
        contexts="""I rent a small apartment.; I own only basic tools.; We moved into an old house last year.; I want
            to avoid buying new things.; I have one free weekend.""",
    ),
    Field(
        name="psychology",
        words="""psychology; psychological; psychologist; behavior; behaviors; behaviour; emotion; emotions; emotional;
            anxiety; depression; motivation; motivated; dream; dreams; habit; habits; memory; personality; mind;
            mental; cognitive; bias; biases; perception; confidence; self-esteem; happiness; happy; sad; anger; fear;
            procrastination; stereotype; stereotypes; attention; loneliness; grief; mindfulness; resolutions; cry;
            humor""",
        topics="""the bystander effect; the sunk cost fallacy; impostor syndrome; cognitive dissonance; the placebo
            effect; learned helplessness; the spotlight effect; confirmation bias; the peak-end rule; decision fatigue;
            attachment theory; the mere-exposure effect; choice overload; the Zeigarnik effect; groupthink; the flow
            state; emotional contagion; the halo effect; false memory; survivor guilt; the hindsight bias; stereotype
            threat; hedonic adaptation; the door-in-the-face technique""",
        questions="""How does {t} show itself in everyday life?; How was {t} first studied?; What can be done about {t}
            at work?; How strong is the evidence for {t}?; How can one notice {t} in oneself?; Which situations make
            {t} more likely?; What do critics say about research on {t}?""",
        explains="""Explain {t} with a scene from daily life.; Describe a study that deals with {t}.; Explain how {t}
            influences decisions.; Explain {t} to a team leader.""",
        lists="""List {n} everyday situations in which {t} can be observed.; List {n} ways of dealing with {t}.; Name
            {n} misunderstandings about {t}.; List {n} questions for a discussion of {t}.""",
        plans="""Plan a small classroom study on {t}.; Plan a team training that deals with {t}.; Plan a
            self-observation diary about {t}.""",
        contexts="""I lead a small team.; I am curious about my own reactions.; I am preparing a seminar paper.; I
            volunteer at a helpline.; A friend and I disagree about it.""",
    ),
    Field(
        name="education",
        words="""education; educational; school; schools; teacher; teachers; student; students; classroom; homework;
            exam; exams; university; universities; college; syllabus; curriculum; lesson; lessons; learning; learn;
            teaching; teach; professor; course; courses; study; studying; kindergarten; tutor; tutoring; degree; phd;
            gpa; grade; grades; scholarship; lecture; lectures; graduation; pupils""",
        topics="""spaced repetition; the flipped classroom; peer assessment; the Montessori method; a portfolio exam;
            project-based learning; the jigsaw technique; homeschooling; dual enrollment; interleaved practice; the gap
            year; an open-book exam; outdoor learning; multi-grade teaching; the Socratic seminar; microteaching;
            inclusive education; standardized testing; retrieval practice; bilingual schooling; a learning contract;
            service learning; the exchange semester; bring-your-own-device teaching""",
        questions="""What does research say about {t}?; How can a school introduce {t}?; Which students gain most from
            {t}?; What do parents usually ask about {t}?; How does {t} change the work of teachers?; What does {t} look
            like in a large class?; What does {t} cost in time and money?""",
        explains="""Explain how {t} works in practice.; Describe a school week that makes use of {t}.; Explain {t} to a
            parent who has doubts.; Explain what teachers need to know about {t}.""",
        lists="""List {n} arguments for and against {t}.; List {n} practical tips for {t}.; Name {n} conditions under
            which {t} works well.; List {n} questions that parents ask about {t}.""",
        plans="""Plan a staff training on {t}.; Plan a one-term trial of {t} at a secondary school.; Plan a
            parents' evening about {t}.""",
        contexts="""I teach thirty students of mixed ability.; I am about to start my final year.; Our school is
            reviewing its methods.; I have two children in primary school.; I am training to become a teacher.""",
    ),
    Field(
        name="astronomy",
        words="""astronomy; space; planet; planets; star; stars; moon; sun; galaxy; galaxies; universe; solar-system;
            mars; jupiter; saturn; venus; telescope; astronaut; astronauts; nasa; rocket; rockets; comet; comets;
            asteroid; asteroids; orbit; orbits; satellite; satellites; cosmic; cosmos; eclipse; meteor; spacecraft""",
        topics="""a magnetar; the Oort cloud; gravitational lensing; a rogue planet; the Kuiper belt; a globular
            cluster; the cosmic microwave background; tidal locking; a brown dwarf; the Roche limit; the Voyager 2
            mission; the Great Red Spot; a fast radio burst; the ice moon Europa; zodiacal light; stellar parallax; the
            Cassini division; the Hubble tension; a planetary nebula; the heliopause; a solar flare; the transit of
            Venus; dark matter; the Lagrange point L2""",
        questions="""How do astronomers observe {t}?; How was {t} discovered?; How far away or how large is {t}?; What
            would a spacecraft find out about {t}?; What puzzles researchers about {t}?; What can amateurs see of {t}?;
            What does {t} reveal about the universe?""",
        explains="""Explain {t} to a visitor in a planetarium.; Describe how {t} was first detected.; Explain the
            scientific importance of {t}.; Describe what {t} would look like from close by.""",
        lists="""List {n} facts about {t} that would surprise a layperson.; List {n} open questions about {t}.; Name
            {n} instruments that help to study {t}.; List {n} ideas for a planetarium show about {t}.""",
        plans="""Plan an observing night with a talk about {t}.; Plan a planetarium show about {t}.; Plan a mission
            concept for studying {t}.""",
        contexts="""I own a small telescope.; I give talks at a public observatory.; I am writing a science column.; I
            follow space missions in the news.; I am helping my daughter with a project.""",
    ),
    Field(
        name="technology",
        words="""technology; technologies; machine; machines; robot; robots; robotics; engineer; engineers;
            engineering; engine; engines; car; cars; vehicle; vehicles; battery; batteries; phone; phones; smartphone;
            computer; computers; laptop; laptops; internet; ai; neural; network; networks; sensor; sensors; bridge;
            train; trains; airplane; airplanes; drone; drones; invention; inventions; device; devices; gadget; app;
            apps; chip; electronics; email-client; cybersecurity; password; passwords""",
        topics="""a heat pump; a tidal turbine; lidar; the self-healing concrete; a maglev train; regenerative braking;
            a solid-state battery; the funicular railway; noise-canceling technology; a desalination plant; e-ink; a
            quantum sensor; vertical farming; a hydrogen fuel cell; the exoskeleton; near-field communication; the
            cable-stayed bridge; a smart meter; additive manufacturing; the Stirling engine; inductive charging;
            passkey authentication; mesh networking; a pumped-storage plant""",
        questions="""How does {t} work?; What is {t} good for in daily life?; What are the limits of {t}?; How reliable
            is {t} today?; What does {t} need in order to run well?; How might {t} develop in the next ten years?;
            Which problems does {t} solve?""",
        explains="""Explain how {t} works.; Describe the main parts of {t} and what they do.; Explain {t} to a curious
            teenager.; Explain where {t} is used today.""",
        lists="""List {n} uses of {t}.; List {n} limits of {t}.; Name {n} questions to ask a vendor about {t}.;
            List {n} components or conditions that {t} depends on.""",
        plans="""Plan a trade fair booth that presents {t}.; Draw up a test plan for {t}.; Plan a two-day training
            course on {t}.""",
        contexts="""I am a technician in a medium-sized firm.; I follow technical news but am no engineer.; Our town is
            thinking about a pilot project.; I have to brief my manager tomorrow.; I am writing a buying guide.""",
    ),
    Field(
        name="work and career",
        words="""job; jobs; career; careers; interview; interviews; resume; cv; recruiter; hiring; hire; hired;
            employee; employees; employer; colleague; colleagues; coworker; boss; office; workplace; meeting; meetings;
            deadline; deadlines; profession; professional; promotion; leadership; teamwork; remote; freelance;
            freelancer; internship; resignation; part-time; productivity; networking-event""",
        topics="""a panel interview; the exit interview; job sharing; a performance review; the four-day week; a
            probation period; desk sharing; salary negotiation; a career break; mentoring; onboarding; the annual staff
            party; shift work; a reference letter; quiet quitting; a lateral move; pair working; flexible hours; a
            skip-level meeting; job shadowing; a non-compete clause; the stand-up meeting; a side job; workplace
            mediation""",
        questions="""How should one prepare for {t}?; What do employers expect when it comes to {t}?; How can {t} go
            wrong?; What questions are allowed in connection with {t}?; How common is {t} today?; What should a new
            employee know about {t}?; How can a manager make {t} more useful?""",
        explains="""Explain how {t} works in a typical firm.; Describe a good and a bad experience with {t}.; Explain
            {t} to someone who has just left university.; Explain what managers should know about {t}.""",
        lists="""List {n} tips that concern {t}.; List {n} mistakes people make with {t}.; Name {n} questions to settle
            before {t}.; List {n} points for a leaflet on {t}.""",
        plans="""Draw up a checklist for {t}.; Plan a lunchtime session on {t} for employees.; Draw up a two-week
            preparation plan for {t}.""",
        contexts="""I have worked in the same place for five years.; I am changing careers at forty.; I manage eight
            people.; I work from home three days a week.; I start a new position in June.""",
    ),
    Field(
        name="family and celebrations",
        words="""birthday; birthdays; wedding; weddings; anniversary; party; parties; gift; gifts; family; families;
            friend; friends; friendship; love; girlfriend; boyfriend; wife; husband; marriage; parents; parent;
            parenting; mother; father; baby; babies; children; kids; grandmother; grandfather; celebration; celebrate;
            christmas; guests; invitation; toast; dating; relationship; relationships; teenager; teenagers; sibling;
            siblings""",
        topics="""a silver wedding anniversary; a housewarming party; a family reunion; a long-distance friendship; a
            surprise visit; a first day at school; a blended family; a farewell party; a family tree; godparenthood; a
            treasure hunt for children; a sleepover; a shared allotment garden; a wedding toast; a pen friendship; a
            baby shower; a street festival; the empty nest; sibling rivalry; a proposal on a ferry; a multi-generation
            household; a potluck supper; a memory box; Midsummer""",
        questions="""What should one keep in mind when it comes to {t}?; How do different cultures deal with {t}?; What
            makes {t} memorable?; How can {t} bring people closer together?; What small details matter for {t}?; What
            would a thoughtful person say about {t}?; How much effort does {t} take?""",
        explains="""Describe what {t} can mean to a family.; Explain how customs around {t} have developed.; Describe
            {t} from the point of view of a child.; Explain what can make {t} difficult.""",
        lists="""List {n} ideas for {t}.; List {n} things to think of in connection with {t}.; Name {n} mistakes to
            avoid when it comes to {t}.; List {n} questions that {t} raises.""",
        plans="""Draw up a checklist for {t}.; Plan a photo album that tells the story of {t}.; Draw up a timetable
            for {t}.""",
        contexts="""We are a large family spread over three countries.; My sister has asked me for help.; I am not good
            at organizing things.; We have very little money to spend.; Everyone expects something personal.""",
    ),
    Field(
        name="philosophy and religion",
        words="""philosophy; philosophical; philosopher; ethics; ethical; unethical; moral; morality; dilemma;
            religion; religions; religious; god; faith; buddhism; christianity; islam; hinduism; judaism; atheism;
            prayer; soul; logic; logical; logically; syllogism; argument; truth; justice; freedom; existence; meaning;
            spirituality; monk; temple; church; mosque; integrity; wisdom""",
        topics="""the trolley problem; Stoicism; the ship of Theseus; Jainism; Plato's cave; moral luck; the golden
            mean; the veil of ignorance; Zoroastrianism; the problem of evil; Pascal's wager; existentialism; the
            social contract; the paradox of tolerance; Shinto; the repugnant conclusion; Occam's razor; the experience
            machine; Sufism; the sorites paradox; virtue ethics; the Sabbath; philosophical zombies as a thought
            experiment; pilgrimage""",
        questions="""What is the central idea of {t}?; What speaks against {t}?; How is {t} discussed today?; What
            would a skeptic say about {t}?; What practical lessons can be drawn from {t}?; How would you introduce {t}
            to a group of teenagers?; Which thinkers are associated with {t}?""",
        explains="""Explain {t} in everyday language.; Describe a situation that illustrates {t}.; Explain how {t} has
            influenced later thought.; Explain what people find troubling or attractive about {t}.""",
        lists="""List {n} questions that {t} raises.; List {n} objections or doubts concerning {t}.; Name {n} texts
            that deal with {t}.; List {n} everyday situations that recall {t}.""",
        plans="""Plan a discussion evening about {t}.; Draw up a reading plan on {t} for beginners.; Plan a school
            lesson on {t}.""",
        contexts="""Our discussion group has picked a difficult subject.; I have no background in philosophy.; I am
            writing an essay for a night class.; I like arguments that can be checked step for step.; I come from a
            secular family.""",
    ),
)

# Fields whose topics do not go with the frames that fit every topic.
SELF_CONTAINED = "cooking; home and craft; family and celebrations; work and career"

# Words that belong to a field but often stand in texts of another one: they count for less.
WEAK_WORDS = """family; children; kids; friend; friends; parent; parents; teenager; teenagers; student; students;
    school; guests; patient; patients; doctor; manager; managers; customer; customers; company; professional; office;
    home; house; job; citizens; country; countries; city; cities; europe; map; capital; population; river; number;
    numbers; set; sum; learn; learning; teach; study; studying; teacher; eat; eating; water; light; sound; energy;
    heat; color; colors; square; clean; train; trains; car; computer; internet; data; english; web; product; products;
    game; games; card; cards; series; scene; wind; sea; ice; plant; plants; memory; mind; cell; base; salt; string;
    graph; table; average; mean; interest; king; queen; battle; argument; logic; meaning; space; star; stars; sun;
    function; code; team; running; training; fear; love; party; wall; window; door; tool; tools; drawing; design;
    photo; play; heart; fat; weight; stress; sleep; mortgage"""

# Frames that fit every topic, joined to those of the field.
QUESTIONS = """What should a beginner know about {t}?; What do most people misunderstand about {t}?; Which fact about
    {t} would surprise an outsider?; How would you introduce {t} to someone who has never heard of it?; What is the
    most interesting thing about {t}?; Where can I find reliable information about {t}?"""
EXPLAINS = """Explain the essentials of {t}.; Give an overview of {t}.; Describe {t} in your own words.; Discuss
    what is interesting about {t}."""
LISTS = """List {n} things worth knowing about {t}.; List {n} questions that a beginner might ask about {t}.; Name {n}
    common misconceptions about {t}.; Give {n} facts about {t} for a quiz."""
PLANS = """Plan a one-hour introduction to {t} for beginners.; Draw up a study plan on {t} for the next four weeks."""
COMPARES = """Compare {t} with {u}.; Compare {t} and {u} with regard to what beginners find hard about them.; Set out
    the main differences between {t} and {u}.; Contrast {t} with {u} for a reader who knows neither."""
COMPARE_QUESTIONS = """What are the main differences between {t} and {u}?; How does {t} compare with {u}?; In which
    respects do {t} and {u} resemble each other?; What is the difference between {t} and {u}?"""
# Sentences that bring a new instruction up to the length of the old one.
TAILS = """Stick to what is well established.; Say openly where opinions differ.; Start with the most important point.;
    I already know the very basics.; Two or three concrete details would help.; Please answer in plain words.; Do not
    assume any special knowledge.; A clear structure matters more to me than completeness.; Begin with a one-line
    summary.; I will read the answer aloud to others.; Leave out what is common knowledge."""

# The same for something to be written.
PRODUCT_TAILS = """Let it stand on its own, without any introduction.; Mention no real persons.; Begin in the middle of
    things.; Make every sentence count.; It should be understandable without further knowledge.; It will be read aloud
    to a group.; Avoid whatever everybody would expect.; I need it for a small magazine.; Keep the facts right, even in
    passing.; Do not explain more than necessary."""

# Products that can be about any topic, with the words that lead to it.
ABOUT = """haiku: about; poem: about; sonnet: about; limerick: about; ballad: about; song: about; story: about; tale:
    about; fable: about; joke: about; riddle: about; dialogue: about; conversation: about; monologue: about; scene:
    about; essay: about; article: about; paragraph: about; report: on; post: about; speech: about; summary: of;
    description: of; tweet: about; caption: for a picture of; slogan: for a poster about; question: about; quiz: about;
    survey: about; questionnaire: about; sentence: about; metaphor: for; title: for a book about; headline: for a
    report on; review: of a book about; email: to a friend about; letter: to the editor about; message: to a colleague
    about; newsletter: about; brochure: about; script: for a short film about; puzzle: about; proverb: about; lyrics:
    about; outline: for an essay on; introduction: to; presentation: on"""

CODE_TASKS = """merges two sorted lists into one sorted list; finds the longest palindrome in a given text; counts how
    often each word occurs in a text file; checks whether two words are anagrams of each other; converts Roman numerals
    to integers; removes duplicate lines from a file while keeping their order; validates an ISBN-13 by its check
    digit; rotates a square matrix by ninety degrees; finds the shortest path through a maze given as a grid; groups a
    list of dates by calendar week; parses a duration such as "1h 25m" into seconds; computes the edit distance between
    two words; returns all prime factors of a positive integer; evaluates an arithmetic expression with parentheses;
    renders a list of rows as an aligned text table; finds the first missing positive integer in a list; splits a bill
    among friends so that few payments are needed; flattens a nested list of any depth; checks whether the brackets in
    a text are balanced; simulates one step of Conway's Game of Life; compresses a text by run-length encoding; finds
    all files above a given size in a folder; schedules meetings so that as few rooms as possible are needed; converts
    a number from one base to another; computes a moving average over a stream of readings; detects a cycle in a
    directed graph; shuffles a deck of cards without any library function; prints a calendar for a given month; finds
    the k most frequent items in a stream; masks all phone numbers in a text; solves a Sudoku by backtracking; turns a
    flat list of parent and child pairs into a tree; checks whether a password follows a set of rules; generates all
    subsets of a small set; converts a temperature series from Fahrenheit to Celsius; finds overlapping intervals in a
    list of bookings; translates a text into Morse code and back; computes the day of the week for any date since 1900;
    reads a log file and reports the five slowest requests; implements a queue with two stacks"""

# Problems with numbers: {a} is small, {b} middle-sized, {c} large.
PROBLEMS = """A tank holds {c} liters and is filled by two pipes that deliver {a} and {b} liters per minute. After how
    many minutes is it full?; A cyclist rides {b} km at 15 km/h and returns at 20 km/h. What is the average speed of
    the whole trip?; What is the sum of the first {a} odd numbers greater than {b}?; A shop lowers a price of {c}
    dollars by {b} percent and then raises it by {b} percent. What is the final price?; A bag holds {a} red and {b}
    blue marbles. What is the probability of drawing two red ones without putting the first back?; A rectangle has an
    area of {c} square meters and one side of {b} meters. What is its perimeter?; Solve the equation {a}x - {b} = {c} -
    x for x.; Find all integers between {b} and {c} that are divisible by both {a} and 6.; A ladder of {b} meters leans
    against a wall with its foot {a} meters away. How high does it reach?; How many different codes of {a} letters can
    be made from the letters of the word PLANET if no letter repeats?; An amount of {c} dollars is invested at {a}
    percent interest, compounded yearly. How much is there after three years?; A train leaves at 9:15 at {c} km/h, a
    second one follows from the same station {b} minutes later and is {a} km/h faster. How far has the first one come
    when the second one starts?; Solve the system x + y = {b} and x - y = {a}.; What is the greatest common divisor of
    {c} and {b}?; A recipe for {a} people needs {c} grams of flour. How much does it need for {b} people?; A circle has
    a radius of {b} centimeters. How much does its area grow if the radius grows by {a} centimeters?; A group of {a}
    workers needs {b} days for a job. How long do ten workers need at the same pace?; The average of {a} numbers is
    {b}. When one more number is added, the average rises by one. What is the new number?; Find the remainder of {c} to
    the power of {a} after division by 7.; A box is {a} cm high, {b} cm wide and twice as long as it is wide. What is
    its volume?; In a group of {c} people, {b} speak French, {b} speak Spanish and {a} speak both. How many speak
    neither?; A car uses {a} liters per 100 km. How much fuel does it need for {c} km with {b} percent reserve?; Write
    the fraction {b}/{c} in lowest terms and as a percentage.; Differentiate f(x) = {a}x^3 - {b}x + {c} and find
    where the slope is zero."""
PROBLEM_LEADS = """Solve the following problem.; Solve this word problem.; Calculate the answer to this problem.; Solve
    this exercise.; Compute the answer to the following question."""

# What a leading verb asks for; "make" and "ask" leave it to the noun that follows.
VERBS = {
    "make": """write; create; generate; compose; draft; make; design; develop; produce; craft; prepare; build; invent;
        construct; devise; sketch; put together; draw up; lay out; set; formulate; author; pen; come; coming; crafting;
        writing; creating""",
    "ask": "give; provide; tell; show; suggest; recommend; offer; name; think; share; propose; answer; output; return",
    "creative": "imagine; pretend",
    "list": "list; brainstorm; enumerate",
    "explain": """explain; describe; discuss; outline; define; illustrate; clarify; elaborate; interpret; explore;
        examine; teach; introduce; walk""",
    "analyze": "analyze; analyse; evaluate; assess; argue; debate; critique; investigate; consider; justify",
    "rank": "rank; prioritize",
    "compare": "compare; contrast; distinguish; set out",
    "classify": """classify; categorize; categorise; detect; identify; determine; decide; judge; predict; verify;
        check; choose; select; label; rate; diagnose; recognize; group; spot; grade""",
    "rewrite": """translate; rewrite; paraphrase; rephrase; simplify; reword; proofread; edit; polish; adapt; turn;
        reply; respond""",
    "summarize": "summarize; summarise; condense; shorten; abridge; boil; sum up",
    "continue": "expand; complete; continue; finish; extend",
    "extract": "extract; find; count; match; link; parse; annotate; transcribe",
    "edit": """replace; fill; convert; converting; correct; sort; organize; reformat; remove; add; fix; reverse;
        reorder; rearrange; transform; delete; insert; merge; split; mark; scale; transpose; flatten; reduce; put;
        tidy; clean; update; arrange""",
    "code": "implement; debug; refactor; optimize; optimise; program; code",
    "math": """solve; solving; calculate; compute; differentiate; integrate; factorize; multiply; divide; subtract;
        estimate; prove; derive; fit; work out; balance""",
    "plan": "plan; schedule; organise",
}

# What kind of task a product is.
PRODUCTS = {
    "creative": """story; stories; poem; poems; sonnet; ballad; song; lyrics; tale; fable; dialogue; conversation;
        monologue; scene; play; screenplay; legend; rap; verse; script""",
    "short": """title; headline; slogan; tagline; caption; tweet; joke; jokes; pun; riddle; sentence; sentences;
        metaphor; simile; haiku; limerick; proverb; question; questions; spells; motto; greeting""",
    "term": "phrase; name; names; word; words; hashtag; completion",
    "letter": """letter; email; e-mail; message; reply; invitation; memo; postcard; note; complaint; apology;
        newsletter""",
    "write": "essay; article; report; post; blog; speech; brochure; presentation; proposal; biography; page; chapter",
    "passage": """paragraph; paragraphs; summary; description; review; profile; abstract; statement; advertisement;
        answer; text; introduction; conclusion; toast; eulogy; announcement; response""",
    "form": "survey; questionnaire; quiz; puzzle; outline; form; worksheet",
    "list": """list; examples; suggestions; ideas; tips; reasons; ways; options; items; facts; games; books; movies;
        exercises; collocations; synonyms; adjectives; advantages; activities; recommendations; laws; things""",
    "plan": """plan; budget; itinerary; recipe; schedule; routine; syllabus; menu; timetable; agenda; program;
        curriculum; roadmap; workshop; lesson; experiment; tour; checklist""",
    "code": """code; function; regex; algorithm; query; sql; class; method; api; module; parser; unittest; app;
        expression""",
    "explain": "explanation; definition; overview; meaning; reason; advice",
    "compare": "comparison",
    "math": "equation; proof; sum",
    "classify": "rating; ranking; judgment; prediction",
    "other": "example; address",
}

# Words that make a text about code certain.
CODE_WORDS = """python; javascript; typescript; java; c++; c#; rust; golang; sql; html; css; regex; regexp; code;
    function; bash; shell; leetcode; algorithm; api; kotlin; haskell; ruby; php; pandas; compiler; unittest;
    subroutine; integers"""
# A word before "program" that makes it no computer program.
OTHER_PROGRAMS = """training; workout; fitness; exercise; radio; tv; television; loyalty; mentoring; study; diet;
    concert; festival; recovery; exchange; conference; rehabilitation; reading"""

# Constraint kinds that fit a kind of task.
CONSTRAINT_KINDS = {
    "creative": "length; tone; shift; hearers; avoid; detail; setting; perspective; ending",
    "short": "versions; tone; hearers; avoid; wordplay",
    "term": "versions; justify; confidence",
    "letter": "length; manner; avoid; subject; closing; opening",
    "write": "length; tone; audience; avoid; example; headings; ending",
    "passage": "length; tone; audience; avoid; example",
    "form": "tone; audience; order; count; avoid",
    "list": "count; each; order; unusual; groups; terse",
    "plan": "fallback; table; cost; optional; preparation; audience",
    "code": "complexity; packages; types; tests; errors; naming; iteration",
    "query": "cases; naming; efficient",
    "explain": "reader; illustration; analogy; terms; brief; headings; misconception",
    "analyze": "reader; illustration; terms; brief; doubt; source",
    "compare": "criteria; table; verdict; brief; terms",
    "rank": "criteria; each; table; doubt",
    "question": "brief; doubt; source; illustration; reader; misconception",
    "reading": "brief; doubt; justify; assumptions",
    "math": "result; symbols; assumptions; exact; check; reader",
    "rewrite": "unchanged; same_length; tone; reader; marks; versions",
    "summarize": "unchanged; brief; reader; terms; order",
    "continue": "length; tone; avoid; versions; audience",
    "extract": "format; doubtful; nothing; repeats",
    "edit": "format; doubtful; marks; unchanged; changes",
    "classify": "justify; confidence; opposite; first_line; borderline",
    "other": "brief; reader; format",
}

# Each kind: a pattern that shows a text carries it already, and its wordings.
CONSTRAINTS = {
    "length": (
        r"\b(?:\d+|two|three|four|five|six|seven|one|single|a|few|several|long|short|brief)[- ](?:word"
        r"|sentence|paragraph|line|page|stanza)"
        r"|\bwords\b|\bparagraphs\b|\blength\b|haiku|limerick|sonnet|\bshort\b|\blong\b",
        """Keep it between {low} and {high} words.; Use no more than {words} words.; Limit the whole text to {words}
            words.; Stay under {words} words without leaving out anything essential.; Make it roughly {words} words
            long.; Divide it into {few} paragraphs of similar length.; Aim for a length of {low} to {high} words.;
            Let the finished text come to no more than {words} words.""",
    ),
    "brief": (
        r"\b(?:\d+|two|three|four|five|six|seven|one|single|short)[- ](?:word|sentence|paragraph|line"
        r"|page)|\bwords\b|brief|\bshort\b"
        r"|concise|detailed|\btables?\b|\boutput\b|\bbullet|\blist\b",
        """Keep the answer under {words} words.; Answer in at most {sentences} sentences.; Use fewer than {words} words
            altogether.; Fit the whole answer into {n} short paragraphs.; Give the core of the answer in the first {n2}
            words.; Limit the answer to {words} words, and do not use bullet points.; Get by with {words} words or
            fewer.""",
    ),
    "tone": (
        r"\btone\b|\bfunny\b|\bformal\b|\bpolite|\bprofessional\b|\bhumorous\b|\bstyle\b|\bsad\b|\bhappy\b"
        r"|\bserious\b|\bcreative\b",
        """Write the whole of it in a {tone} tone.; Strike a {tone} tone throughout.; Keep the tone {tone} but never
            {tone2}.; Make it sound {tone} rather than {tone2}.; Hit a {tone} note without ever becoming {tone2}.""",
    ),
    "shift": (
        r"\btone\b|\bmood\b|\bturns?\b|\btwist\b",
        """Begin in a {tone} tone and grow more {tone2} towards the end.; Let the mood turn {tone2} halfway through.;
            Add a twist that can be guessed only in hindsight.; Let a {tone} beginning lead up to a sober ending.""",
    ),
    "hearers": (
        r"\baudience\b|\breaders?\b|\bfor (?:a |an |the |young |small |my )?(?:child|kid|teen)"
        r"|\bchildren\b|\baimed at\b|\blisten",
        """Write it for {hearer}.; Make it suitable for {hearer}.; Choose words that {hearer} would enjoy.; Remember
            that {hearer} will hear it read aloud.; Make {hearer} laugh or stop and think.""",
    ),
    "cases": (
        r"\bcases?\b|\btests?\b|\bexamples?\b",
        """Show one case in which it works and one in which it must not.; Show {n} sample inputs together with the
            results.; Name one input that it handles wrongly.""",
    ),
    "efficient": (
        r"\befficien|\bfast\b|\bshort\b",
        """Keep it as short as clarity allows.; Make sure that it stays fast on {size} entries.; Explain each part
            of it in one line.""",
    ),
    "terse": (
        r"\bwords\b|\bper (?:entry|line)\b|\bshort\b|\bbrief",
        """Keep every entry under {n2} words.; Use a single line per entry.; Give each entry in no more than {n2}
            words.""",
    ),
    "changes": (
        r"\bchanges?\b|\bside by side\b|\boriginal\b",
        """List all changes at the end.; Show the old and the new version side by side.; Name the change that matters
            most.; Make as few changes as possible, and count them.""",
    ),
    "manner": (
        r"\btone\b|\bformal\b|\bpolite|\bprofessional\b|\bfriendly\b|\bfirm\b",
        """Keep the tone {manner}.; Make it sound {manner} from the first line to the last.; Write in a tone that
            is {manner}.""",
    ),
    "audience": (
        r"\baudience\b|\breaders?\b|\bfor (?:a |an |the |young |small |my )?(?:child|kid|beginner|student"
        r"|adult|teen|year|expert|newcomer|friend)"
        r"|\bchildren\b|\bbeginners?\b|\baimed at\b|\baddress",
        """Write it for {audience}.; Tailor it to {audience}.; Choose words and examples that suit {audience}.; Assume
            that it will be read by {audience}.; Make sure that {audience} can follow it without help.; Remember
            that it is meant for {audience}.""",
    ),
    "avoid": (
        r"\bavoid|\bdo not use\b|\bdon't use\b|\bwithout using\b|\bdo without\b|\bno use of\b"
        r"|\bleave out\b|\bexclud|\bsteer clear",
        """Avoid {thing} as far as possible.; Try to do without {thing} altogether.; Do not use {thing} anywhere in
            it.; Steer clear of {thing} from beginning to end.; Avoid both {thing} and the word "{word}".; Do not use
            the words "{word}" or "{word2}".; Leave out {thing}, even where it would be convenient.""",
    ),
    "detail": (
        r"\binclude|\bmention|\bfeatur|\bcontain|\bwork in\b",
        """Include {detail} that turns out to matter.; Mention {detail} at least twice.; Work in {detail} and
            {detail2}, in this order.; Let {detail} play a small but decisive part.; Include {detail}, but do not
            explain where it comes from.""",
    ),
    "setting": (
        r"\bset (?:it|the)\b|\bsetting\b|\btakes? place\b",
        """Set the whole of it {place}.; Let it take place {place}.; Choose a setting {place} and make it felt in every
            part.; Set the opening {place} and the ending somewhere far away.""",
    ),
    "perspective": (
        r"\bpoint of view\b|\byou are an?\b|\bfirst person\b|\bperspective\b|\btense\b|\bnarrat",
        """Tell it from the point of view of {narrator}.; Write it in the first person and in the present tense.; Let
            {narrator} be the one who speaks.; Use the past tense only, and never name the person who speaks.; Give
            it the perspective of {narrator} without saying so directly.""",
    ),
    "ending": (
        r"\bend(?:s|ing)? with\b|\blast (?:line|sentence|word|paragraph)\b|\bclosing (?:line|sentence)\b"
        r"|\bends?\b|\bending\b",
        """Bring it to an end with {ending}.; Let the last sentence take up the first one.; Close the final paragraph
            with {ending}.; Make sure that it ends with {ending} and not with a moral.""",
    ),
    "versions": (
        r"\bversions\b|\balternatives\b|\bvariants\b|\blist\b|\bsome\b|\bseveral\b|\bmultiple\b",
        """Offer {n} versions that differ in tone.; Give {n} alternatives and mark the one you like best.; Provide {n}
            variants, from the plainest to the boldest.; Supply one cautious and one daring version.""",
    ),
    "wordplay": (
        r"\bdouble meaning\b|\balliteration\b|\brhym|\bpuns?\b|\bwordplay\b",
        """Use alliteration at least once.; Build on a word with a double meaning.; Let it rhyme or nearly rhyme.;
            Rely on wordplay that still makes sense when it is read aloud.""",
    ),
    "subject": (
        r"\bsubject line\b",
        """Add a subject line of no more than {n} words.; Put a subject line on top that already says what is wanted.;
            Start with a subject line that would make {audience} open it.""",
    ),
    "closing": (
        r"\bnext step\b|\bclose with\b|\bdeadline\b|\bby when\b",
        """Close with one clear next step and a date.; Make plain by when an answer is needed.; Close with an offer
            that is easy to accept.; Name one next step for each side.""",
    ),
    "opening": (
        r"\bopen with\b|\bopening\b|\bfirst sentence\b|\bbegin with\b|\bstart with\b",
        """Open with a sentence that does not begin with "I".; Say in the first sentence what it is about.; Open with a
            word of thanks, and come to the point in the second sentence.; Begin with something the two sides agree
            on.""",
    ),
    "example": (
        r"\bexamples?\b|\banecdote\b|\bcase\b|\billustrat",
        """Support the main point with {n} concrete examples.; Open with a short anecdote and return to it at the end.;
            Back up every claim with a concrete case.; Use one example from {sphere} and one from {sphere2}.""",
    ),
    "headings": (
        r"\bheadings?\b|\bbullets?\b|\bsections?\b|\bstructure",
        """Use {n} headings that could stand on their own.; Divide it into {n} sections, each with a heading.; Give
            every section a heading in the form of a question.; Use headings, each with a one-line summary below
            it.""",
    ),
    "count": (
        r"\b(?:\d+|two|three|four|five|six|seven|eight|nine|ten|twelve|fifteen)\b",
        """Give exactly {count} items.; Stop after exactly {count} entries.; Offer {count} items, no more and no
            fewer.; Name {count} of them, each in no more than {n2} words.; Limit yourself to the {count} best
            ones.""",
    ),
    "each": (
        r"\beach\b|\bfor every\b|\bper item\b|\bevery (?:item|entry)\b",
        """Add one sentence of explanation to each item.; Say in a few words whom each item suits best.; Give a
            concrete example for each item.; Write each item as a full sentence with a different verb.; Note one
            possible objection to each item.; Rate the effort for each item as low, medium or high.""",
    ),
    "order": (
        r"\border(?:ed)?\b|\brank|\bsort|\balphabetical|\bfrom (?:the )?(?:most|least|easy|easiest|best)\b"
        r"|\bascending",
        """Order the entries {order}.; Arrange everything {order}.; Put the entries in order, {order}.; Sort the
            result {order}, and number it.""",
    ),
    "unusual": (
        r"\bunusual\b|\bfew (?:people|readers)\b|\bobvious\b|\buncommon\b|\bless known\b",
        """Include at least one entry that few readers would think of.; Leave out whatever would be too obvious.; Make
            at least half of the entries unusual ones.; Skip the obvious ones that everybody knows.""",
    ),
    "groups": (
        r"\bgroups?\b|\bcategor|\bheadings?\b",
        """Sort the entries into {n} groups with a heading each.; Divide them into {n} groups and explain the division
            in one line.; Arrange them in groups, so that no group has more than {n} entries.""",
    ),
    "fallback": (
        r"\bfallback\b|\bplan b\b|\bgoes? wrong\b|\bback-?up\b|\bin case\b",
        """Add a fallback for the part that is most likely to fail.; Say what to do if one part falls through.; Build
            in a plan B that needs no further preparation.; Keep {n} hours in reserve and say what they are for.""",
    ),
    "table": (
        r"\btables?\b|\bcolumns?\b|\brows?\b|\btabular\b",
        """Present the result as a table with {n} columns.; Put the essentials into a table before any running text.;
            Use a table, and keep every cell under {n2} words.; Give the result in a table with a short note below
            it.""",
    ),
    "cost": (
        r"\bcosts?\b|\bbudget\b|\bdollars?\b|\bcheap|\bprice|\$",
        """Keep the total cost below {money} dollars.; State the cost of every part and a total of at most {money}
            dollars.; Assume that {money} dollars are available, and say how they are spent.""",
    ),
    "optional": (
        r"\boptional\b|\bskipped\b|\bpriorit|\bessential\b",
        """Mark everything that can be skipped when time is short.; Separate what is essential from what is optional.;
            Put an asterisk next to each part that is optional.; Say which {n} parts have priority.""",
    ),
    "preparation": (
        r"\bbeforehand\b|\bin advance\b|\bprepar",
        """List at the start what must be ready beforehand.; State what has to be done in advance and by whom.;
            Begin with everything that has to be arranged beforehand.""",
    ),
    "complexity": (
        r"\bcomplexity\b|\blinear time\b|\befficien|\bmemory\b|\bo\(",
        """State the time and space complexity in a comment.; Make it run in linear time if that is possible.; Keep the
            additional memory constant where possible.; Make sure that it copes with {size} entries within a second.;
            Choose an approach that stays efficient for {size} entries.""",
    ),
    "packages": (
        r"\bpackages?\b|\blibrar|\bbuilt-?ins?\b|\bimports?\b",
        """Use only the standard library.; Do not rely on any third-party packages.; Do without any imports.; Use no
            external packages, and name the version you wrote it for.; Do not use a built-in that already does the
            job.""",
    ),
    "types": (
        r"\btype hints?\b|\btypes?\b|\bannotat|\btyped\b",
        """State the types of all arguments and results.; Document which types are accepted and which are returned.;
            Make the types of all arguments explicit.; Give every argument a type and a one-line description.""",
    ),
    "tests": (
        r"\btests?\b|\btest cases?\b|\bassert|\bunittest",
        """Add {n} tests, one of them for an edge case.; Include {n} test cases with their expected results.; Add tests
            for empty, small and very large input.; Show {n} calls together with what they return.""",
    ),
    "errors": (
        r"\berrors?\b|\bexceptions?\b|\binvalid\b|\brais(?:e|es|ing)\b|\bedge cases?\b",
        """Raise a clear error when the input is invalid.; Handle empty input without an exception.; Report invalid
            input with a message that names the offending value.; Reject invalid arguments with a helpful message.""",
    ),
    "naming": (
        r"\bdocstrings?\b|\bcomments?\b|\bnames\b|\breadable\b|\bdocument",
        """Use descriptive names and a docstring.; Explain every non-obvious line in a comment.; Split it into parts of
            at most {n2} lines, each with a docstring.; Write comments only where the reason is not obvious.""",
    ),
    "iteration": (
        r"\brecurs|\biterat|\bloops?\b|\bwithout (?:using )?",
        """Solve it without recursion.; Use an iterative approach with a single loop.; Avoid nested loops.; Use
            loops only, no recursion.""",
    ),
    "reader": (
        r"\breaders?\b|\bfor (?:a |an |the |young |small |my )?(?:child|kid|beginner|student|adult|teen"
        r"|expert|newcomer)|\bchildren\b"
        r"|\bbeginners?\b|\bto (?:a|an|someone|people)\b|\blike i am\b|\byear-old|\bnever\b|\bplain\b"
        r"|\bwithout a\b|\bsuit(?:s|able)?\b",
        """Put it in terms that {audience} would understand.; Pitch the answer at {audience}.; Choose a level that
            suits {audience}.; Assume that the reader has never dealt with the subject.; Make it useful for
            {audience}.; Use plain words that {audience} would not have to look up.""",
    ),
    "illustration": (
        r"\bexamples?\b|\billustrat|\bconcrete\b|\bcase\b|\bscene\b",
        """Give a concrete example from {sphere}.; Illustrate the main point with a case from {sphere}.; Use one
            example from {sphere} and one from {sphere2}.; Support the answer with {n} concrete examples.; Include
            an example that does not fit the general rule.""",
    ),
    "analogy": (
        r"\banalog|\bmetaphor|\bcompar|\bimage of\b",
        """Use {image} as an analogy.; Build the explanation around the image of {image}.; Include an analogy with
            {image} and say where it breaks down.; Find an analogy for the hardest part.""",
    ),
    "terms": (
        r"\btechnical terms?\b|\bjargon\b|\bterms\b|\bdefin",
        """Define every technical term when it first appears.; Use no more than {n} technical terms and define each of
            them.; Do without jargon.; Put the technical terms into a short glossary at the end.""",
    ),
    "misconception": (
        r"\bmisconception|\bmistake|\bmyth|\bmisunderst|\bwrong\b",
        """Correct one widespread misconception along the way.; Mention {n} common misconceptions and say what is wrong
            with them.; Point out the mistake that beginners make most often.""",
    ),
    "doubt": (
        r"\buncertain|\bexperts\b|\bconfiden|\bdisagree|\bdisput|\bdoubt|\bcertain\b|\bdiffer\b",
        """Name one point on which experts disagree.; Say how certain each part of the answer is.; Separate what is
            certain from what is merely likely.; Say what would overturn the answer.; Mark every claim that is open
            to doubt.""",
    ),
    "source": (
        r"\bsources?\b|\bcite|\breferences?\b|\bevidence\b|\bquote",
        """Name the kind of source on which each claim rests.; Say what evidence would settle the matter.; Mention {n}
            sources where a reader could check the answer.; Point to the best evidence for the main claim.""",
    ),
    "criteria": (
        r"\bcriteri|\bwith regard to\b|\brespects\b|\bin terms of\b",
        """Use the same {n} criteria throughout.; Use {n} criteria and name them at the start.; Choose {n} criteria and
            say which one matters most.; Name the {n} criteria that decide the matter.""",
    ),
    "verdict": (
        r"\brecommend|\bverdict\b|\bwinner\b|\bprefer",
        """End with a recommendation for {audience}.; Close with a verdict of no more than {n2} words.; Say which
            of them you would recommend to {audience}.""",
    ),
    "result": (
        r"\bfinal (?:answer|result)\b|\bline of its own\b|\bdecimal",
        """Put the final result on a line of its own.; State the final result in a complete sentence.; Give the final
            result together with its unit, if it has one.; Repeat the final result in bold at the end.""",
    ),
    "symbols": (
        r"\bsymbols?\b|\bnotation\b|\bvariable",
        """Introduce every symbol before it is used.; Use as few symbols as possible.; Choose symbols that remind
            the reader of what they stand for.""",
    ),
    "assumptions": (
        r"\bassum",
        """State every assumption you make.; Name the assumption on which the result depends most.; List all
            assumptions at the start.""",
    ),
    "exact": (
        r"\bexact|\bround",
        """Give the exact value before any rounded one.; Do not round until the very end.; Give the result exactly
            and rounded to {n} significant digits.""",
    ),
    "check": (
        r"\bcheck\b|\bverif|\bplausib|\bsecond method\b",
        """Say how the result can be checked in a few seconds.; Add a quick plausibility check.; Check the result
            by putting it back into the problem.""",
    ),
    "unchanged": (
        r"\bunchanged\b|\bas they are\b|\bnames\b|\bwithout changing\b|\bnot be changed\b|\ball the information\b",
        """Keep all names and numbers exactly as they are.; Leave every proper name unchanged.; Keep quotations, names
            and dates unchanged.; Leave all figures as they are, including their units.""",
    ),
    "same_length": (
        r"\blength\b|\blonger\b|\bshorter\b|\bwords\b|\bbrief|\b(?:one|single)[- ]sentence|\bshort\b|\bbullet",
        """Keep the result no longer than the original.; Use no more than {words} words for the result.; Keep the
            number of sentences the same.; Do not exceed {words} words, whatever the length of the original.""",
    ),
    "marks": (
        r"\bmark\b|\bbrackets?\b|\bfootnote|\bnote\b",
        """Mark every passage where the meaning had to shift a little.; Put doubtful passages in brackets.; Add a note
            on the one decision that was hardest.; Mark anything that cannot be carried over exactly.""",
    ),
    "format": (
        r"\bformat|\btable\b|\bjson\b|\blist\b|\boutput\b|\bseparated\b|\bbullets?\b|\byes or no\b|\bselect\b",
        """Return the result as {format}.; Give the result in the form of {format}.; Format the answer as {format}.;
            Present the outcome as {format}, without any text around it.""",
    ),
    "doubtful": (
        r"\bdoubt|\bunclear\b|\bambigu|\bunsure\b",
        """Afterwards, name every case that was doubtful.; Put a question mark after each doubtful entry.; Say in one
            sentence how you treated unclear cases.; Point out anything ambiguous in the material.""",
    ),
    "nothing": (
        r"\bif (?:nothing|there (?:is|are) no|you don't)\b|\botherwise\b|\bif none\b|\belse\b|\bnone\b",
        """If nothing fits, say so in one short sentence.; If there is nothing to report, answer with a single dash.;
            If none can be found, suggest what might be missing.""",
    ),
    "repeats": (
        r"\bduplicat|\brepeat|\bmore than once\b|\bunique\b",
        """Mention nothing more than once.; Drop duplicates and say how many there were.; If something occurs more than
            once, count it.; Do not repeat any part of the material unless it is needed.""",
    ),
    "justify": (
        r"\bexplain|\breasons?\b|\bwhy\b|\bjustif|\bevidence\b",
        """Justify the decision in a single sentence.; Give the one reason that tipped the balance.; Name the words or
            facts that decided the matter.; Justify the result in no more than {n2} words.""",
    ),
    "confidence": (
        r"\bconfiden|\bcertain\b|\bsure\b|\bprobab|\bscale\b",
        """State your confidence as a percentage.; Say how confident you are on a scale from one to {scale}.; Add
            whether you are certain, fairly sure or guessing.; Give a probability for every possible result.""",
    ),
    "opposite": (
        r"\bopposite\b|\bcounter|\bboth sides\b|\bobjection",
        """Name the strongest reason for the opposite view.; Mention what speaks for the opposite result.; Add the
            best counterargument in one sentence.""",
    ),
    "first_line": (
        r"\bfirst line\b|\boutput\b|\byes or no\b|\btrue or false\b|\banswer with\b|\bon (?:a|its) (?:line"
        r"|own)\b|\brespond with\b",
        """Put the decision alone on the first line.; Give the decision on the first line and {n} remarks below it.;
            Write the result on the first line in capital letters.""",
    ),
    "borderline": (
        r"\bborderline\b|\bunclear\b|\bambigu|\bmixed\b|\bneutral\b",
        """Say what would make it a borderline case.; Describe a slightly different case with another result.; If it is
            a borderline case, say so openly.; Point out which small change would reverse the result.""",
    ),
}

# What the slots of a wording can hold.
SLOTS = {
    "words": "60; 75; 80; 90; 100; 110; 120; 130; 140; 150; 160; 175; 180; 200; 220; 240; 250; 280",
    "low": "60; 80; 90; 100; 110; 120",
    "high": "140; 150; 160; 180; 200; 220; 250; 300",
    "n": "two; three; four; five; six",
    "few": "two; three; four",
    "manner": "friendly but firm; warm; formal; matter-of-fact; confident; respectful; cordial; businesslike; patient",
    "sentences": "five; six; seven; eight; nine",
    "n2": "eight; ten; twelve; fifteen; twenty",
    "count": "five; six; seven; eight; nine; ten; twelve; fifteen",
    "tone": """warm; dry; matter-of-fact; playful; solemn; hopeful; brisk; tender; respectful; lively; relaxed;
        wistful; confident; mischievous; calm; conversational; formal""",
    "tone2": "sentimental; sarcastic; urgent; boastful; detached; anxious; cynical; theatrical; pompous",
    "audience": """ten-year-olds; retired engineers; busy managers; first-year students; complete beginners; a
        skeptical reader; readers with no technical background; newcomers who have just moved here; curious teenagers;
        experts from a neighboring field; visitors with five minutes to spare; apprentices; a committee of volunteers;
        readers whose first language is another one""",
    "hearer": """ten-year-olds; curious teenagers; a tired night-shift worker; apprentices; elderly neighbors; a shy
        person; newcomers who have just moved here; a skeptical listener; grandparents; a classroom of
        twelve-year-olds""",
    "thing": """clichés; the passive voice; rhetorical questions; exclamation marks; superlatives; stock phrases;
        figures of speech; sentences of more than twenty words; direct speech; abbreviations; anything that sounds like
        advertising copy; adverbs that end in -ly; lists of three""",
    "word": "very; nice; suddenly; really; thing; important; always; beautiful",
    "word2": "amazing; never; actually; interesting; special; great; perhaps",
    "detail": """a broken umbrella; a missed phone call; an old key; a torn ticket; a borrowed coat; a stopped clock; a
        wrong turning; a forgotten promise; a paper boat; a dropped coin; an unsigned postcard; a half-empty
        suitcase""",
    "detail2": """a whispered warning; the smell of paint; a locked gate; a power cut; an unexpected guest; a row
        of empty chairs""",
    "place": """on a night bus; in a lighthouse in November; in an empty swimming hall; on a ferry that is running
        late; in a village without electricity; at a market shortly before closing time; in a library after hours; on
        the top floor of a parking garage; in a waiting room; at the edge of a frozen lake; in a desert research
        station""",
    "narrator": """an outsider who understands only half of it; a child who is supposed to be asleep; an old neighbor;
        a stray dog; someone who regrets it all; a rival; a witness who cannot be trusted; the youngest in the room;
        a night watchman""",
    "ending": """an open question; an image rather than a statement; a surprising concession; a single line of
        dialogue; a promise; a fact that changes how the beginning reads; a short instruction; a look ahead""",
    "sphere": """everyday life; working life; a small town; a big city; the recent past; another part of the world;
        recent news""",
    "sphere2": """the distant past; a remote village; your own imagination; the life of a ten-year-old; a time of
        crisis""",
    "order": """from the most to the least important; alphabetically; from the most common to the least known; from the
        simplest to the most demanding; from the most to the least surprising""",
    "image": """a leaking bucket; a busy crossroads; a row of dominoes; a lock and its key; a crowded elevator; a
        well-packed suitcase; a relay of messengers; a rope pulled from both ends; a jammed zipper; a lost-property
        office; a jigsaw with a missing piece""",
    "money": "50; 80; 120; 150; 200; 250; 300; 400; 600; 900; 1,200",
    "size": "ten thousand; a hundred thousand; a million; several million",
    "format": """a numbered list; a two-column table; a JSON object with the keys "result" and "note"; a bulleted list;
        CSV with a header line; a Markdown table; key-value pairs, one per line""",
    "scale": "five; six; seven; ten",
    "years": "ten years; twenty years; fifty years; hundred years; decade; generation",
    "input": "material; input; data",
}

# Follow-ups that deepen: a pattern that shows one is there, tails woven into a question, sentences of their own.
FOLLOW_UPS = {
    "cause": (
        r"\bwhy\b|\bcauses?\b|\breasons?\b|\blies behind\b|\bled to\b",
        """and what is the reason for this; and why is that so; and what lies behind this; and how does this come
            about""",
        """Also explain how this comes about.; Say what lies behind it.; Go into the reasons and say which of them
            weighs most.; Explain the reasons, and not only the result.; Also name the reasons for this.""",
    ),
    "consequence": (
        r"\bconsequences?\b|\bfollows\b|\beffects? (?:of|on)\b|\botherwise\b|\blong run\b|\bimplications?\b",
        """and what follows from it in practice; and what consequences does this have in the long run; and what
            difference does it make in practice""",
        """Also say what consequences this has in the long run.; Say what difference it makes in practice.; Go on to
            say what follows from this in practice.; Include the consequences that are easily overlooked.""",
    ),
    "tradeoff": (
        r"\btrade-?offs?\b|\bdrawbacks?\b|\bdisadvantages?\b|\bbenefits?\b|\bpros and cons\b|\bprice\b"
        r"|\bspeaks against\b",
        """and which drawbacks have to be weighed against the benefits; and what trade-offs does this involve; and what
            speaks against the obvious answer; and what benefits and drawbacks come with it""",
        """Weigh the benefits against the drawbacks.; Discuss the trade-offs that this involves.; Say what speaks
            against the obvious view as well.; Include the drawbacks that supporters tend to ignore.""",
    ),
    "affected": (
        r"\baffect|\bwhom?\b.*\b(?:differ|most)\b|\bgains most\b|\bstake\b",
        """and who is most affected by this; and for whom does the answer differ most; and how does it affect those
            who had no say in it""",
        """Also say who is most affected by this.; Consider how differently it affects different groups.; Include
            the view of those who are affected but seldom asked.""",
    ),
    "change": (
        r"\bchanged?\b|\bover (?:time|the past)\b|\bhistory of\b|\bdevelop|\bin the past\b|\bcoming\b",
        """and how has this changed over the past {years}; and how might the answer change in the coming years; and
            was this already so a {years2} ago""",
        """Also describe how this has changed over the past {years}.; Say how the picture might change in the coming
            years.; Compare today's situation with that of a {years2} ago, and account for the change.""",
    ),
    "basis": (
        r"\bhow (?:you|one) can tell\b|\bleaves? open\b|\brests? on\b|\bevidence\b|\bjustify\b",
        """and how can one tell; and what does the material leave open; and on which detail does the answer rest""",
        """Also say how one can tell.; Name the detail on which the answer rests.; Say what the material leaves open.;
            Add what would have to be different for another answer.""",
    ),
    "obstacle": (
        r"\bgo(?:es)? wrong\b|\bwhether it has worked\b|\bdoes not work\b|\bmistakes?\b",
        """and what is most likely to go wrong; and how can one tell whether it has worked; and which mistakes are
            typical""",
        """Also say what is most likely to go wrong.; Say how one can tell whether it has worked.; Add what to do when
            it does not work.; Name the typical mistakes and how to avoid them.""",
    ),
    "role": (
        r"\bremembered\b|\bwithout this person\b|\bshaped\b|\binfluenced\b",
        """and what is this person remembered for today; and what would be different without this person; and by
            whom was this person influenced""",
        """Also say what this person is remembered for today.; Add which experiences shaped this person most.; Say
            what would be different without this person.""",
    ),
    "parts": (
        r"\binfluence one another\b|\bfactors?\b|\brelate\b|\bhow the parts\b|\bdepends? on\b|\binteract",
        """and how do the factors involved influence one another; and which factor matters most; and on what does
            this depend""",
        """Show how the factors involved influence one another.; Say which factor matters most and which could be
            neglected.; Show how the various factors relate to one another.; Make clear on what this depends.""",
    ),
}
SLOTS["years2"] = "decade; generation; century"

# Words that give a quantity.
QUANTITIES = """two; three; four; five; six; seven; eight; nine; ten; eleven; twelve; twice; half; double; dozen"""
# Fields of which one can ask whom something affects and how it has changed.
SOCIAL_FIELDS = """health; history; business; personal finance; travel; language; environment; music; film and games;
    sport; law and civics; education; technology; work and career; family and celebrations; data; philosophy and
    religion"""
# Words of a text that weighs what to do, so that benefits and drawbacks come into it.
CHOICES = """should; best; better; good; advantage; advantages; benefit; benefits; improve; reduce; choose; worth; buy;
    ban; allow; prevent; policy; instead"""

# Calls for several dependent steps, by kind of task.
REASONING = {
    "math": """Show every intermediate step, and verify the result by a second method.; Write down what is given, set
        up the relations, solve them in order, and test the outcome against the wording.; First estimate the result,
        then work it out exactly, and finally account for the difference.; Name the rule behind each step, and build
        every step on the one before.; Break the task into smaller ones, solve these one after another, and combine
        their results at the end.; First say which quantities are known, then derive the missing ones in turn, and
        only then give the result.""",
    "rank": """First settle the criterion, then look at each candidate in turn, and only then put them in order.;
        Compare the candidates in pairs, note the outcome each time, and derive the final order from these outcomes.;
        First sort out the clear cases, then decide the close ones with a second criterion, and finally give the
        full order.""",
    "classify": """Before deciding, list the evidence for each possibility, weigh it, and only then commit yourself.;
        First state the criteria, then test them one after another, and finally draw the conclusion.; Rule out the
        wrong possibilities one by one, giving a reason each time, before naming the right one.; First collect what
        speaks for each side, then decide which points carry weight, and conclude from that.; Derive the decision
        in steps: name the criterion, apply it to the case, and check the outcome.""",
    "compare": """First find common criteria, then apply them one after another, and draw the conclusion from all of
        them together.; Treat each side separately first, then set the findings against each other, and only then come
        to a judgment.; Build the comparison up in steps: facts first, then differences, then what the differences
        mean.; First establish what both have in common, then derive the differences from it, and finally rank
        these by weight.""",
    "question": """Derive the answer in steps: say what it depends on, settle each point in turn, and then draw the
        conclusion.; First set out what is known, then what follows from it, and only then answer the question.; Break
        the question into smaller ones, answer these in order, and build the final answer from them.; Begin with the
        assumptions, reason from one to the next, and say where the chain is weakest.; First give the quick answer,
        then test it against a counterexample, and finally correct it if necessary.; Lead up to the answer in at
        least {n} steps, each of which relies on the one before.""",
    "debug": """First reproduce the fault on a small case, then narrow down its cause, and only then change the code.;
        Trace the values line by line, name the first one that is wrong, and work back from there to the cause.; List
        the possible causes, rule them out one after another, and show that the remaining one explains every symptom.;
        First say what each part is meant to do, then find the part that does not do it, and correct it last.""",
    "analyze": """First separate the facts from the judgments, then examine each in turn, and draw the conclusion
        last.; Build the argument in at least {n} steps, so that each one follows from the one before.; State the main
        claim, test it against two objections in turn, and revise it accordingly.; Begin with the evidence, say
        what each piece implies, and only then combine the findings.""",
}

# What stands before the material once it is structured.
INPUT_NOTES = {
    "json": """The {input} is given as a JSON array with one record per {unit}.; The {input} comes as a JSON array in
        which every record holds one {unit}.; Work from the JSON array below, which holds one {unit} per record, and
        refer to the records by id.; Take the {input} from the JSON array below, one record per {unit}.""",
    "table": """The {input} is given as a Markdown table with one {unit} per row.; Use the Markdown table below, which
        lists one {unit} per row.; The {input} stands in the table below, and each row holds one {unit}.""",
    "csv": """The {input} is given as CSV with a header line and one {unit} per row.; Read the {input} from the CSV
        lines below, each of which has an id.; The {input} comes as CSV, so refer to every {unit} by its id.""",
    "log": """The {input} is given as a numbered log with one {unit} per entry.; Work from the numbered log below, and
        cite its entries by number.; The {input} comes as a log in which every entry holds one {unit}.""",
    "object": """The {input} is given as a JSON object.; Take all details from the JSON object below.; The {input}
        comes as a JSON object, so use the values of its keys.""",
    "fields": """The {input} is given as a table of fields and values.; Take all details from the table of fields
        and values below.""",
    "text": """The {input} is given as a JSON object with an id and a text.; Work from the text in the JSON object
        below.; The {input} comes as a JSON record, whose text is what counts.""",
    "turns": """The {input} is given as a JSON array with one record per turn.; Read the exchange from the JSON
        array below, in which every record holds one turn.""",
}

# General nouns after "a" or "an", and the specific instances that can stand in their place, article included.
SINGULARS = """
    animal: a hedgehog; an otter; a red panda; a barn owl; a sea turtle; a camel; a badger
    wild animal: a lynx; a moose; a wild boar; a gray wolf; a brown bear
    farm animal: a dairy cow; a merino sheep; a goat; a laying hen; a donkey
    pet: a guinea pig; a budgerigar; a rescue greyhound; a tortoise; a ferret
    dog: a border collie; a dachshund; a Newfoundland; a whippet
    cat: a Maine Coon; a Siamese cat; a sphynx cat; a tabby cat
    bird: a kingfisher; a puffin; a magpie; a hummingbird; a stork
    fish: a salmon; a seahorse; a pike; an eel; a clownfish
    insect: a dragonfly; a honeybee; a stag beetle; a grasshopper; a mosquito
    reptile: a chameleon; a rattlesnake; a leopard gecko; a Nile crocodile
    mammal: an echidna; a bat; a blue whale; a sloth
    mythical creature: a griffin; a kelpie; a phoenix; a basilisk
    country: Portugal; Vietnam; Kenya; Chile; Estonia; Canada; Morocco; New Zealand
    foreign country: Japan; Brazil; Norway; Egypt; Mexico
    developing country: Bangladesh; Ghana; Bolivia; Nepal
    city: Lisbon; Nairobi; Montreal; Osaka; Bogotá; Istanbul; Melbourne
    big city: New York; Mumbai; São Paulo; Cairo; Seoul
    large city: Jakarta; Mexico City; Lagos; Chicago; Bangkok
    small town: Hallstatt; Marfa; Whitby; Telluride; Ronda
    capital city: Vienna; Ottawa; Lima; Hanoi; Warsaw
    continent: Africa; South America; Antarctica; Europe
    island: Iceland; Crete; Madagascar; Jeju; Bornholm
    mountain: Kilimanjaro; Mont Blanc; Mount Fuji; Denali
    river: the Danube; the Mekong; the Mississippi; the Niger
    lake: Lake Victoria; Lake Geneva; Lake Titicaca; Lake Superior
    desert: the Gobi; the Kalahari; the Sonoran Desert; the Namib
    ocean: the Pacific; the Indian Ocean; the Arctic Ocean; the Atlantic
    planet: Saturn; Mercury; Neptune; Venus
    star: Betelgeuse; Sirius; Proxima Centauri; Vega
    language: Swahili; Portuguese; Korean; Finnish; Tagalog; Hindi
    foreign language: Italian; Japanese; Arabic; Polish; Turkish
    programming language: Python; Rust; Kotlin; Haskell; Go; Julia
    database: PostgreSQL; MongoDB; SQLite; Cassandra
    operating system: Linux; Android; FreeBSD; Windows
    data structure: a binary heap; a hash table; a linked list; a B-tree
    sorting algorithm: merge sort; quicksort; insertion sort; heapsort
    fruit: a pomegranate; a quince; a mango; an apricot; a papaya; a persimmon
    vegetable: an artichoke; a sweet potato; a beetroot; a kohlrabi; an eggplant
    spice: saffron; cardamom; smoked paprika; star anise
    herb: tarragon; thyme; lemon balm; coriander
    drink: green tea; mango lassi; hot chocolate; ginger beer
    beverage: kombucha; espresso; hibiscus tea; oat milk
    dessert: tiramisu; crème brûlée; apple strudel; baklava; rice pudding
    snack: roasted chickpeas; a granola bar; popcorn; rice crackers
    healthy meal: lentil soup with spinach; grilled salmon with quinoa; a vegetable stir-fry with tofu
    dish: lasagna; pad thai; moussaka; chicken biryani; feijoada
    meal: a three-course brunch; a vegetarian curry; a mushroom omelet with salad; a picnic lunch
    sport: volleyball; rowing; badminton; judo; cross-country skiing; rugby
    team sport: handball; field hockey; basketball; cricket
    martial art: judo; taekwondo; aikido; capoeira
    hobby: birdwatching; pottery; stamp collecting; chess; bouldering; beekeeping
    game: hide-and-seek; dominoes; charades; table tennis
    board game: chess; Catan; backgammon; Scrabble
    card game: rummy; poker; bridge; cribbage
    video game: Tetris; Minecraft; Portal 2; Stardew Valley
    musical instrument: the cello; the oboe; the accordion; the sitar; the trombone
    instrument: the violin; the saxophone; the harp; the banjo
    company: IKEA; Toyota; Spotify; Nestlé; Siemens
    large company: Samsung; Unilever; Maersk; Walmart
    tech company: Nvidia; Shopify; Nintendo; Adobe
    startup: a meal-kit startup; a startup that rents out cargo bikes; a two-person software startup
    small business: a family bakery; a bicycle repair shop; a flower shop; a copy shop
    business: a coffee roastery; a car wash; a translation agency; a garden center
    restaurant: a ramen bar; a family-run pizzeria; a vegan diner; a tapas bar
    shop: a secondhand bookshop; a hardware store; a cheese shop
    store: a toy store; a shoe store; a music store
    factory: a shoe factory; a paper mill; a brewery; a cement plant
    machine: a sewing machine; a forklift; a dishwasher; a lathe; an espresso machine; a combine harvester
    vehicle: a delivery van; an electric scooter; a city bus; a cargo bike; a fire engine
    car: a Toyota Prius; a Volkswagen Beetle; a Ford Mustang; a Fiat 500
    tool: a spirit level; a cordless drill; a hacksaw; a soldering iron
    device: a hearing aid; a smart thermostat; an e-book reader; a pulse oximeter
    gadget: a fitness tracker; an action camera; a drone; a label printer
    household appliance: a vacuum cleaner; a tumble dryer; a microwave oven; a rice cooker
    appliance: a freezer; a toaster; an induction stove; a dehumidifier
    invention: the printing press; the zipper; the bicycle; the telegraph; barbed wire
    website: Wikipedia; an online flea market; a local news website; a recipe website
    app: a habit tracker; a language learning app; a bus timetable app
    robot: a robotic lawn mower; a warehouse robot; a surgical robot
    famous person: Marie Curie; Nelson Mandela; Frida Kahlo; Charlie Chaplin; Greta Thunberg
    celebrity: Beyoncé; Tom Hanks; Lionel Messi; Oprah Winfrey
    historical figure: Joan of Arc; Genghis Khan; Cleopatra; Abraham Lincoln; Rosa Parks
    scientist: Rosalind Franklin; Michael Faraday; Chien-Shiung Wu; Alexander von Humboldt
    famous scientist: Isaac Newton; Lise Meitner; Niels Bohr; Ada Yonath
    inventor: Thomas Edison; Hedy Lamarr; James Watt; Alfred Nobel
    philosopher: Immanuel Kant; Hannah Arendt; Confucius; Seneca
    writer: Toni Morrison; Jorge Luis Borges; Virginia Woolf; Chinua Achebe
    famous writer: Jane Austen; Leo Tolstoy; Gabriel García Márquez; Agatha Christie
    painter: Vincent van Gogh; Artemisia Gentileschi; Claude Monet; Katsushika Hokusai
    famous artist: Pablo Picasso; Yayoi Kusama; Rembrandt; Georgia O'Keeffe
    composer: Clara Schumann; Johann Sebastian Bach; Igor Stravinsky; Antonín Dvořák
    musician: Miles Davis; Yo-Yo Ma; Joni Mitchell; Fela Kuti
    athlete: Serena Williams; Eliud Kipchoge; Simone Biles; Usain Bolt
    politician: Angela Merkel; Winston Churchill; Jacinda Ardern; Indira Gandhi
    fictional character: Sherlock Holmes; Captain Ahab; Pippi Longstocking; Hermione Granger
    superhero: Spider-Man; Wonder Woman; Black Panther; Batman
    novel: Pride and Prejudice; Moby-Dick; Things Fall Apart; The Trial
    classic novel: Middlemarch; Don Quixote; Jane Eyre; Crime and Punishment
    book: The Little Prince; Silent Spring; Sapiens; The Diary of a Young Girl
    fairy tale: Hansel and Gretel; Rumpelstiltskin; The Snow Queen; Puss in Boots
    movie: Casablanca; Spirited Away; Jurassic Park; The Truman Show
    film: Metropolis; Rear Window; Parasite; Amélie
    painting: the Mona Lisa; Guernica; The Starry Night; Girl with a Pearl Earring
    museum: the Louvre; the Rijksmuseum; the Pergamon Museum; the Prado
    landmark: the Eiffel Tower; Angkor Wat; the Golden Gate Bridge; Machu Picchu
    famous landmark: the Taj Mahal; Big Ben; the Sydney Opera House; Stonehenge
    building: the Guggenheim Museum in Bilbao; the Pantheon in Rome; the Chrysler Building
    historical event: the fall of the Berlin Wall; the French Revolution; the Moon landing of 1969; the Black Death
    war: the Thirty Years' War; the Crimean War; the Korean War
    natural disaster: an earthquake; a hurricane; a volcanic eruption; a flash flood
    natural phenomenon: the northern lights; a solar eclipse; a geyser; ball lightning
    renewable energy source: wind power; geothermal energy; tidal power; solar power
    chemical element: tungsten; phosphorus; helium; mercury
    metal: titanium; copper; aluminum; zinc
    gas: argon; methane; nitrogen; ozone
    vitamin: vitamin B12; vitamin C; vitamin K; folic acid
    disease: malaria; measles; asthma; rheumatoid arthritis
    chronic illness: type 1 diabetes; multiple sclerosis; Crohn's disease
    organ: the liver; the pancreas; the spleen; the heart
    emotion: envy; relief; homesickness; pride; embarrassment
    feeling: nostalgia; curiosity; guilt; gratitude
    color: turquoise; crimson; mustard yellow; olive green
    shape: a hexagon; a torus; a rhombus; a cone
    fabric: linen; merino wool; denim; velvet
    flower: a sunflower; an orchid; a tulip; a snowdrop; a peony
    tree: an olive tree; a silver birch; a baobab; a ginkgo; a weeping willow
    plant: a Venus flytrap; a cactus; bamboo; a stinging nettle; a tomato plant
    houseplant: a monstera; a peace lily; a snake plant; an aloe vera
    season: autumn; early spring; the rainy season; midwinter
    holiday: Thanksgiving; Diwali; the Lunar New Year; Saint Patrick's Day
    festival: the Rio Carnival; Oktoberfest; Holi; the Edinburgh Fringe
    religion: Buddhism; Sikhism; Judaism; Islam
    dance: the tango; flamenco; the waltz; samba
    school subject: geography; chemistry; physical education; music
    piece of furniture: a rocking chair; a bunk bed; a standing desk; a bookcase
    gift: a leather notebook; a pair of hiking socks; a theater voucher; a potted orchid
    toy: a kite; a wooden train set; a yo-yo; a rag doll
    room: an attic bedroom; a windowless bathroom; a shared kitchen
    job: the job of air traffic controller; the job of bicycle courier; the job of court interpreter
    profession: midwifery; surveying; journalism; carpentry
    teacher: a chemistry teacher; a driving instructor; a retired primary school teacher
    doctor: a pediatrician; a ship's doctor; a rural general practitioner
    engineer: a bridge engineer; a sound engineer; an aerospace engineer
    student: a first-year law student; an exchange student from Chile; a student of marine biology
    teenager: a fifteen-year-old gymnast; a sixteen-year-old apprentice; a shy fourteen-year-old
    child: a seven-year-old girl; a nine-year-old boy; a kindergarten child
    young child: a four-year-old boy; a five-year-old girl; a toddler
    person: a retired bus driver; a night nurse; a young violinist; a deep-sea fisherman; a lighthouse keeper
    stranger: an old man with a violin case; a woman in a raincoat; a lost tourist from Oslo
    celebrity chef: Julia Child; Jamie Oliver; Samin Nosrat
    vacation: a camping trip in Norway; a week by the Black Sea; a cycling tour along the Danube
    school: a village primary school; a boarding school; a vocational school; a music school
    university: a technical university; a small liberal arts college; an open university
    hospital: a children's hospital; a rural hospital; a university hospital
    hotel: an airport hotel; a ski hotel; a capsule hotel; a bed-and-breakfast hotel
    library: a mobile library; a university library; a village library
    park: a skate park; a botanical park; a national park; a neighborhood park
    garden: a rooftop garden; a Japanese rock garden; a community garden; a herb garden
    house: a timber-framed house; a tiny house; a row house
    apartment: a studio apartment; a basement apartment; a penthouse apartment
    office: an open-plan office; a home office; a tax office; a lost-property office
    village: a fishing village; a mountain village; a village of forty inhabitants
    neighborhood: a harbor neighborhood; a student neighborhood; a neighborhood of row houses
    beach: a pebble beach; a family beach; a surf beach
    forest: a beech forest; a cloud forest; a mangrove forest
    party: a costume party; a garden party; a farewell party; a retirement party
    birthday party: an eightieth birthday party; a pirate-themed birthday party; a surprise birthday party
    wedding: a barn wedding; a winter wedding; a silver wedding
    workout: a rowing workout; a kettlebell workout; a twenty-minute jump rope workout
    trip: a cycling trip; a school trip; a three-day sailing trip
    road trip: a road trip along the coast of Norway; a road trip from Chicago to Miami; a road trip around Iceland
    weekend: a rainy weekend; a long weekend; a weekend without electricity
    job interview: an interview for the job of bank clerk; an interview for an apprenticeship; a video job interview
    meeting: a kickoff meeting; a parents' meeting; a board meeting; a town hall meeting
    conference: a dental conference; a developers' conference; a climate conference
    manager: a supermarket manager; a project manager; a night manager
    boss: a newly promoted boss; a boss half her age; a boss who never replies
    coach: a swimming coach; a debating coach; a figure skating coach
    customer: a first-time customer; a regular customer; a dissatisfied customer
    colleague: a newly hired colleague; a colleague from the night shift; a retiring colleague
    friend: a childhood friend; a pen friend; a friend from the choir
    neighbor: an elderly neighbor; a noisy neighbor; a new neighbor
    tourist: a Canadian tourist; a backpacking tourist; a lost tourist
    king: a deposed king; a child king; a king without an army
    queen: a widowed queen; a warrior queen; an exiled queen
    knight: a retired knight; a knight who is afraid of horses; a penniless knight
    detective: a retired detective; a store detective; a detective with a poor memory
    hero: a reluctant hero; a twelve-year-old hero; a hero who cannot swim
    villain: a charming villain; a villain who writes poetry; a bankrupt villain
    lawyer: a divorce lawyer; a patent lawyer; a public defender
    nurse: a night nurse; an army nurse; a school nurse
    chef: a pastry chef; a ship's chef; a hotel chef
    farmer: a dairy farmer; a rice farmer; an olive farmer
    pilot: a glider pilot; a bush pilot; a helicopter pilot
    couple: a retired couple; a newlywed couple; an elderly couple; a couple from Lyon
    family: a family of five; a single-parent family; a farming family; a refugee family
    baby: a three-month-old baby; a newborn baby; a baby of ten months
    boy: a ten-year-old boy; a shepherd boy; a stable boy
    girl: a seven-year-old girl; a teenage girl; a fisherman's daughter
    man: a blind piano tuner; a retired postman; a middle-aged man; an elderly man
    woman: a young stonemason; a retired opera singer; an elderly woman; a middle-aged woman
    old man: a ninety-year-old clockmaker; a retired fisherman; an old man with a wooden leg
    old woman: an eighty-year-old seamstress; a retired midwife; an old woman with three cats
    monster: a lake monster; a monster under the bed; a swamp monster
    alien: an alien from a water planet; a stranded alien; an alien the size of a thumb
    ghost: the ghost of a stationmaster; a forgetful ghost; the ghost of an organist
    spaceship: a freight spaceship; a spaceship with a leaking tank; a generation spaceship
    phone: a ten-year-old phone; a foldable phone; a rotary phone
    computer: a quantum computer; a desktop computer from 1995; a single-board computer
    laptop: a refurbished laptop; a gaming laptop; a laptop with a broken screen
    camera: a pinhole camera; an underwater camera; a thermal camera
    bridge: a suspension bridge; a covered wooden bridge; a swing bridge
    train: a night train; a steam train; a high-speed train
    ship: a container ship; an icebreaker ship; a sailing ship
    boat: a kayak; a fishing boat; a paper boat; a houseboat
    bicycle: a folding bicycle; a cargo bicycle; a child's bicycle
    product: a reusable coffee cup; a folding bicycle helmet; a beeswax candle; a solar phone charger
    new product: a stackable lunch box; an unbreakable umbrella; a silent alarm clock
    service: a laundry pickup service; a dog-walking service; a piano tuning service
    charity: a food bank; a children's hospice; a wildlife rescue charity
    nonprofit: a food bank; a community theater; an animal rescue group
    bank: a savings bank; an online bank; a credit union
    loan: a student loan; a car loan; a loan between friends
    contract: a rental contract; an employment contract; a phone contract
    law: a seat belt law; a law against littering; a data protection law
    crime: a bicycle theft; an art forgery; a burglary
    project: a school garden project; a bridge renovation project; a software migration project
    presentation: a ten-minute presentation; a sales presentation; a thesis presentation
    concert: a chamber concert; an open-air concert; a school concert
    course: an online course; a first-aid course; a two-week sailing course
    exam: a driving exam; an oral chemistry exam; an entrance exam
    breakfast: a camping breakfast; a high-protein breakfast; a hotel breakfast
    dinner: a candlelight dinner; a three-course dinner; a picnic dinner
    cake: a lemon drizzle cake; a carrot cake; a Black Forest cake
    sandwich: a grilled cheese sandwich; a club sandwich; an egg salad sandwich
    salad: a lentil salad; a potato salad; a watermelon and feta salad
    soup: a leek and potato soup; a cold cucumber soup; a chicken noodle soup
    skill: typing with ten fingers; public speaking; reading a map
    political system: a constitutional monarchy; direct democracy; federalism
    conflict: a boundary dispute between neighbors; a strike at a port; a quarrel over an inheritance
    beginner: a beginner over sixty; a left-handed beginner; a beginner of twelve
    newcomer: a newcomer from another country; a newcomer with little time; a newcomer of fourteen
    learner: a learner with dyslexia; an adult learner; a learner of nine
    language learner: a Korean language learner; a language learner at primary school; a retired language learner
    outsider: an outsider from another trade; an outsider from a warmer country; an outsider of seventeen
    citizen: a tenant; a Swedish citizen; a first-time voter; a dual citizen
    ordinary citizen: a tenant; a first-time voter; a commuter
    firm: a roofing firm; a printing firm; a translation firm; a shipping firm
    small firm: a roofing firm of five; a family-owned printing firm; a catering firm
    founder: the founder of a catering firm; a nineteen-year-old founder; the founder of a bicycle brand
    team: a handball team; a curling team; a five-person design team; a debating team
    small team: a team of four nurses; a sales team of five; a kitchen team of six
    large class: a class of thirty-four; a lecture class of two hundred; a class of fifty adults
    reader: a twelve-year-old reader; a reader with no technical background; a Canadian reader
    listener: a radio listener; a listener with perfect pitch; a first-time listener
    visitor: a visitor from overseas; an elderly visitor; a visitor in a wheelchair
    spectator: a spectator from overseas; a child spectator; a first-time spectator
    parent: a single parent; a first-time parent; a foster parent
    designer: a furniture designer; a web designer; a game designer
    artist: a street artist; a tattoo artist; a glass artist
    critic: a film critic; a restaurant critic; a newspaper critic
    guest: a vegetarian guest; a hotel guest; a guest with a nut allergy
    employee: a seasonal employee; a hotel employee; a newly hired employee
    new employee: a newly hired receptionist; a newly hired crane operator; a newly hired librarian
    town council: the council of a mining town; the council of a seaside resort; the council of a ski resort
    community center: a neighborhood community center; a rural community center; the community center of a mining town
    quiz: a pub quiz; a classroom quiz; a radio quiz
    first-time cook: a student with a single hot plate; a ten-year-old; a recently widowed man
    club: a rowing club; a chess club; a gardening club
"""

# General phrases that need no article: plurals, uncountable nouns, nouns with another determiner.
PHRASES = """
    animals: hedgehogs; sea otters; camels; barn owls; red foxes
    wild animals: lynxes; wild boars; gray wolves
    pets: guinea pigs; tortoises; budgerigars
    dogs: border collies; dachshunds; guide dogs
    cats: Siamese cats; Maine Coons; barn cats
    birds: puffins; storks; hummingbirds; magpies
    insects: dragonflies; stag beetles; grasshoppers
    countries: Norway and Chile; Kenya and Vietnam; Canada and Portugal; Japan and Mexico
    developing countries: Ghana and Nepal; Bolivia and Bangladesh; Zambia and Laos
    cities: Lisbon and Osaka; Montreal and Nairobi; Istanbul and Lima
    large cities: Jakarta and Chicago; Lagos and Seoul; Mexico City and Bangkok
    languages: Finnish and Swahili; Korean and Portuguese; Hindi and Italian
    programming languages: Python and Rust; Kotlin and Haskell; Go and Julia
    planets: Venus and Mars; Jupiter and Saturn; Mercury and Neptune
    people: retired teachers; young couples; city dwellers; nurses; newly arrived immigrants; long-distance runners
    young people: apprentices; college freshmen; seventeen-year-olds
    old people: retired dockworkers; great-grandparents; residents of a nursing home
    older people: people over eighty; retired farmers; residents of a nursing home
    children: kindergarten children; eight-year-olds; siblings of school age; toddlers
    kids: eight-year-olds; first graders; toddlers
    teenagers: fifteen-year-olds; high school seniors; apprentices under eighteen
    students: first-year law students; exchange students; nursing students; seventh graders
    college students: engineering undergraduates; first-generation college students; art students
    adults: adults over fifty; shift workers; evening-class learners
    individuals: freelancers; nurses; private landlords
    teachers: chemistry teachers; music teachers; kindergarten teachers
    workers: warehouse workers; crane operators; seasonal farm workers
    employees: call center agents; hotel receptionists; junior accountants
    companies: shipping companies; small breweries; Toyota and Volkswagen
    businesses: bakeries; bicycle shops; translation agencies
    small businesses: bakeries; hair salons; bicycle repair shops
    organizations: charities; public libraries; hospitals
    scientists: marine biologists; geologists; particle physicists
    fruits: apricots; mangoes; blackcurrants
    vegetables: sweet potatoes; beetroots; artichokes
    spices: saffron and cardamom; cumin and sumac; cloves and nutmeg
    flowers: peonies; tulips; sunflowers
    trees: birches; olive trees; giant sequoias
    plants: orchids; carnivorous plants; succulents
    metals: copper and titanium; zinc and nickel; gold and platinum
    sports: rowing and judo; badminton and volleyball; rugby and handball
    vehicles: delivery vans; cargo bikes; city buses
    cars: electric cars; delivery vans; vintage cars
    machines: forklifts; dishwashers; combine harvesters
    musical instruments: the cello and the oboe; the harp and the accordion; the sitar and the banjo
    tools: chisels and planes; cordless drills; hacksaws
    robots: warehouse robots; robotic lawn mowers; surgical robots
    emotions: envy and relief; pride and shame; homesickness and curiosity
    hobbies: beekeeping and pottery; birdwatching and chess; bouldering and knitting
    mountains: the Alps; the Andes; the Carpathians
    oceans: the Pacific and the Atlantic; the Arctic Ocean and the Indian Ocean; the Pacific and the Southern Ocean
    vitamins: vitamins B12 and D; vitamins C and K; vitamins A and E
    religions: Buddhism and Sikhism; Judaism and Islam; Hinduism and Christianity
    friends: childhood friends; friends from a choir; old army friends
    families: farming families; families with twins; single-parent families
    couples: retired couples; newlywed couples; long-distance couples
    parents: first-time parents; adoptive parents; parents of twins
    women: women in the army; women engineers; working mothers
    men: retired men; young fathers; men over forty
    schools: village schools; boarding schools; vocational schools
    universities: technical universities; private universities; medical schools
    hospitals: rural hospitals; children's hospitals; military hospitals
    customers: first-time customers; dissatisfied customers; corporate customers
    managers: project managers; bank managers; middle managers
    tourists: cruise passengers; backpackers; business travelers
    beginners: complete beginners over fifty; left-handed beginners; beginners in their teens
    phones: smartphones; satellite phones; refurbished phones
    computers: quantum computers; laptops; mainframe computers
    batteries: lithium-ion batteries; car batteries; sodium-ion batteries
    books: picture books; audiobooks; travel books
    movies: silent movies; horror movies; black-and-white movies
    video games: puzzle games; racing games; city-building games
    habits: bedtime habits; eating habits; spending habits
    diseases: malaria and measles; asthma and diabetes; influenza and tuberculosis
    music: jazz; chamber music; reggae; film music
    art: street art; abstract painting; video art
    sport: rowing; volleyball; judo
    exercise: swimming; brisk walking; strength training
    food: street food; canned food; fermented food
    healthy food: lentils and nuts; leafy vegetables; whole-grain bread
    social media: Instagram; TikTok; LinkedIn
    technology: facial recognition; satellite navigation; 3D printing
    artificial intelligence: speech recognition; machine translation; a chess program
    pollution: noise pollution; river pollution; plastic pollution
    stress: exam stress; stress at work; stress in traffic
    anxiety: exam anxiety; fear of flying; stage fright
    renewable energy: wind power; geothermal energy; tidal power
    energy: nuclear energy; geothermal energy; wave energy
    public transport: trams; night buses; commuter trains
    traffic: rush-hour traffic; truck traffic; air traffic
    crime: bicycle theft; tax fraud; shoplifting
    bad weather: a hailstorm; a week of fog; freezing rain
    a healthy lifestyle: eight hours of sleep a night; daily walks and home cooking; cycling to work
    the workplace: an airport; a law firm; a shipyard; a call center
    the office: an open-plan office; a shared office; a law office
    the weekend: a long weekend; the first weekend of May; a rainy weekend
    the government: the Swedish government; the city government of Vienna; the Canadian government
    my dog: my six-year-old beagle; my deaf border collie; my greyhound puppy
    my cat: my overweight Persian cat; my twelve-year-old tabby; my newly adopted kitten
    my friend: my oldest school friend; my friend from the climbing gym; my American pen friend
    my friends: my three roommates; my friends from the rowing club; my former classmates
    my boss: my newly promoted boss; the head of my department; my boss at the bakery
    my job: my job as a bookkeeper; my job at a call center; my night job at a bakery
    my garden: my shady back garden; my rooftop garden; my vegetable garden
    my house: my hundred-year-old house; my row house; my house by a railway line
    my car: my fifteen-year-old Volvo; my electric car; my secondhand van
    my phone: my three-year-old phone; my cracked phone; my work phone
    my computer: my old desktop computer; my work laptop; my home server
    my laptop: my five-year-old laptop; my work laptop; my overheating laptop
    my city: my hometown of Leeds; Rotterdam; Denver
    my child: my six-year-old daughter; my nine-year-old son; my shy teenage son
    my son: my nine-year-old son; my teenage son; my grown-up son
    my daughter: my six-year-old daughter; my teenage daughter; my daughter in Toronto
    my family: my family of six; my wife and our twins; my parents and my younger brother
    my girlfriend: my girlfriend of three years; my girlfriend Laura; my long-distance girlfriend
    my boyfriend: my boyfriend of two years; my boyfriend Marco; my long-distance boyfriend
    my wife: my wife of twenty years; my German wife; my pregnant wife
    natural disasters: earthquakes; flash floods; volcanic eruptions
"""

# Words after which a general noun is what is being asked for, or what something is said to be: it must stay.
ASKED = """name; suggest; recommend; choose; pick; select; find; invent; create; make; design; build; write; give;
    tell; sing; list; identify; guess; compose; generate; draw; me; us; as; like; is; are; was; were; be; been; become;
    becomes; being; called; not; need; want; than; given; provide; propose; output; return; imagine; develop; produce;
    take; up; draft; prepare; called; such; each; every; use; rank; classify; plan; organize; play; open; start; buy;
    get; hire; schedule; construct; have; has; had; having; brainstorm; enter; categorize; finding; choosing; creating;
    making; or; without; no"""
# Words that can follow a general noun without narrowing it down.
AFTER = """is; are; was; were; have; has; had; can; could; will; would; should; may; might; must; does; do; did; and;
    or; but; when; while; if; because; so; before; after; during; need; needs; want; wants; today; more; differently;
    often; usually; still"""
# Words before a plural that show it stands alone.
BEFORE = """about; for; between; among; with; by; to; on; from; do; can; should; could; will; why; how; when; if; that;
    help; helps; make; makes; and; of; against; without; affect; affects; influence; influences; teach; encourage;
    because; while; than; describe; explain; discuss; compare; reduce; protect; improve; prevent; understand; study;
    learn; support; motivate; use; treat; avoid; manage; handle; fight; feed; train; attract; raise; like; play;
    played; in; at; during"""
# Words that make a general noun the first part of a compound.
COMPOUNDS = """rights; right; music; policy; club; house; team; program; programme; system; server; card; book; law;
    laws; store; shop; life; cruelty; shelter; food; council; center; centre; hall; park; kingdom; products; product;
    testing; behavior; behaviour; name; names; skills; management; services; service; model; models; side; level;
    owner; owners; driver; player; players; learning; translation; culture; cultures; learn; learns; education; tree;
    trees; bed; board; code; guide; room; work; word; cover; review; club; clubs; person; writer; population; leader;
    leaders; event; events; vegetable; tax; taxes; walk; trip; tour; plan; schedule; structure; wagon; way; ways"""

# Words that a question opens with.
QUESTION_WORDS = """what; why; how; which; who; whom; whose; where; when; is; are; was; were; do; does; did; am; has;
    have; should; will; shall; would; could; can; may"""
# Words that make a question one of arithmetic.
MATH_WORDS = """sum; number; numbers; integer; integers; prime; percentage; celsius; fahrenheit; value; math; maths;
    mathematical; equation; equations; calculation; calculations"""
# Words before "of" that make the noun after it one of many.
COUNTED = """list; lists; number; name; names; type; types; kind; kinds; sort; set; example; examples; variety; range;
    some; one; most; many; each; all; any; pair; think; thinking; thought; choice; instead; dream; out"""
# Adjectives general enough to stay before a noun made specific; instances that bring one of them do not fit then.
ADJECTIVES = """new; small; large; big; old; young; good; great; happy; simple; typical; modern; local; busy; quiet;
    lonely; friendly; shy; traditional; ordinary; successful; retired; beautiful; tiny; huge; cheap; clever; curious;
    strange; mysterious; fictional; elderly; newborn; teenage; middle-aged; first-time"""
# Words after which only an instance of the same noun fits ("a school in Africa").
NARROWING = "in; at; on; with; who; that; which; whose; from; for; near; without; where; of"

ENGLISH = """the; do; not; was; were; be; will; more; most; many; much; best; good; between; like; than; but; because;
    any; some; other; what; how; why; which; who; where; and; are; with; this; that; these; those; your; you; they;
    does; did; should; would; could; can; has; have; my; its; there; about; from; following; given; for; please; i; is;
    of; to; a; it; if; at; my; me; by; when; all"""
FOREIGN = """le; la; les; des; une; un; du; est; et; dans; pour; avec; sur; que; qui; der; das; und; ein; eine; den;
    dem; nicht; ist; für; über; el; los; las; del; para; con; por; una; es; y; het; een; van; il; lo; gli; di; della;
    che; per; uma; um; os; na; za; och; att; det; som"""
STOP_WORDS = """a; an; the; and; or; but; if; of; to; in; on; at; by; for; with; from; as; is; are; was; were; be;
    been; it; its; this; that; these; those; i; you; your; my; me; we; our; us; he; she; they; them; their; his; her;
    do; does; did; can; could; would; should; will; may; might; what; which; who; whom; how; why; when; where; there;
    then; than; so; not; no; any; some; such; each; every; all; please; following; given; have; has; had; let; also;
    only; into; about; up; out; about; s; t; don; doesn; it's; i'm; one; more; most"""

# Skeletons of drafts: a title, then lines in which `{term}` is a key term of the request, in quotation marks.
SKELETONS = {
    "creative": """Outline:; opening image that brings in {term}; someone wants something that has to do with {term};
        {term} stands in the way; a turn that shows {term} in a new light; last line that returns to the opening""",
    "short": """Ways to find the wording:; start from what people associate with {term}; turn {term} around or
        exaggerate it; keep the one version in which {term} comes last""",
    "letter": """Outline:; greeting that suits the person addressed; occasion for writing, with {term}; the point
        itself: {term}; what is expected next, with regard to {term}; closing line and name""",
    "write": """Outline:; introduction that says what is at stake with {term}; main point on {term}; second point,
        built on {term}; objection or limit, with regard to {term}; conclusion in one sentence""",
    "list": """Entries to find:; the best-known case of {term}; a case that suits {term} in particular; an inexpensive
        or easy case, with {term} in mind; an unusual case of {term}; a case to leave out because of {term}""",
    "plan": """Stages:; settle the limits set by {term}; collect what is needed for {term}; put the parts in order,
        {term} first; add time and cost for {term}; check the whole against the request""",
    "explain": """Points in order:; what {term} means here; how {term} comes into it; an example that involves {term};
        a common mistake about {term}; summary in one sentence""",
    "analyze": """Points in order:; the claim or subject: {term}; what is known about {term}; what speaks against it,
        seen from {term}; how much weight {term} carries; judgment""",
    "compare": """Points in order:; the two sides, named, with {term}; criteria taken from {term}; what they share;
        where they part, above all in {term}; which of them suits whom""",
    "question": """Points to settle:; what exactly {term} covers here; what is known about {term}; what the answer
        depends on: {term}; where doubt remains about {term}; answer in one sentence""",
    "math": """Way to the result:; given quantities, starting with {term}; wanted quantity; relation that links {term}
        to the rest; calculation; check of the result against {term}""",
    "rewrite": """Way to the result:; read the material for its purpose; mark what must stay, such as {term}; put each
        sentence anew; compare both versions for {term}""",
    "extract": """Way to the result:; go through the material from start to end; mark everything that concerns {term};
        write the marked parts in the form asked for, {term} included; check that nothing is missing""",
    "passage": """Outline:; first sentence that names {term}; the essential facts about {term}; one detail that shows
        {term}; closing thought on {term}""",
    "form": """Parts:; title and purpose, with {term}; easy opening part on {term}; main part on {term}; closing part
        on what else concerns {term}; note on how to use the answers about {term}""",
    "summarize": """Way to the result:; mark the sentences that carry {term}; drop examples and repetitions; put what
        is left in order; check that {term} is still there""",
    "continue": """Way to the result:; take up the thread at {term}; keep voice and tense; lead {term} on to the next
        point; close where {term} is settled""",
    "edit": """Way to the result:; find the places that concern {term}; decide what has to be put there, with {term} in
        mind; leave the rest as it is; check the whole once more for {term}""",
    "rank": """Way to the order:; the criterion, taken from {term}; what is known about each candidate, starting with
        {term}; the clear cases; the close cases, with {term} as a second look; the final order""",
    "term": """Ways to find it:; start from the meaning of {term}; collect words that go with {term}; keep the
        closest one""",
    "classify": """Way to the decision:; the criterion: {term}; signs in favor, to be looked for in {term}; signs
        against, seen from {term}; decision in the form asked for""",
    "other": """Points to settle:; what is wanted with regard to {term}; what has to be known about {term}; an example
        for {term}; the answer in a few sentences""",
}
